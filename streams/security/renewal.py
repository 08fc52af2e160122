"""Renews leaves of our own authority: the same names, kind of key and use, a new key, a new end."""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, mldsa, mlkem, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from streams.security.pki import DELEGATION_USAGE, Authority, LeafFiles, PkiError

_KINDS = {
    ec.EllipticCurvePublicKey: "ec",
    rsa.RSAPublicKey: "rsa",
    mldsa.MLDSA65PublicKey: "mldsa65",
    mldsa.MLDSA44PublicKey: "mldsa44",
    mlkem.MLKEM768PublicKey: "mlkem768",
}


def renew(authority: Authority, path: Path, *, days: int | None = None) -> LeafFiles:
    """Replace NAME.pem and NAME.key, each in one step. `days`: how long it lasts; without it, as long as the old one.

    PkiError if the certificate is none of this authority's.
    """
    try:
        (leaf, *others) = x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as error:
        raise PkiError(f"{path}: not a certificate: {error}") from error
    if others or leaf.issuer != authority.certificate.subject:
        raise PkiError(f"{path} was not issued by the authority in {authority.directory}; renew it where it came from")
    if path.suffix != ".pem" or not path.with_suffix(".key").exists():
        raise PkiError(f"{path}: its key is not beside it; name the file where it was issued, NAME.pem beside NAME.key")
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uses = set(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
        kind = next(name for key, name in _KINDS.items() if isinstance(leaf.public_key(), key))
    except (x509.ExtensionNotFound, StopIteration, UnsupportedAlgorithm, ValueError) as error:
        raise PkiError(f"{path} is not a leaf that `logfwd pki issue` makes: {error}") from error
    return authority.issue(
        identities=[str(name.value) for name in names if not isinstance(name, x509.IPAddress)],
        hosts=[str(name.value) for name in names if isinstance(name, x509.IPAddress)],
        out=path.with_suffix(""),
        kind=kind,
        days=days or _lifetime_days(leaf),
        delegates=any(extension.oid == DELEGATION_USAGE for extension in leaf.extensions),
        role=_role(uses),
        force=True,
    )


def days_left(path: Path) -> float:
    """Days until a certificate ends; negative once it has. PkiError."""
    try:
        leaf = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise PkiError(f"{path}: not a certificate: {error}") from error
    return (leaf.not_valid_after_utc - datetime.datetime.now(datetime.UTC)) / datetime.timedelta(days=1)


def _lifetime_days(leaf: x509.Certificate) -> int:
    return max(round((leaf.not_valid_after_utc - leaf.not_valid_before_utc) / datetime.timedelta(days=1)), 1)


def _role(uses: set[x509.ObjectIdentifier]) -> str:
    if uses >= {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH}:
        return "both"
    return "receiver" if ExtendedKeyUsageOID.SERVER_AUTH in uses else "forwarder"
