"""Certificates that were revoked, by lists of their authorities (CRLs, RFC 5280 section 5).

A list is believed if the key of a trusted authority, or of an intermediate in the same file, has signed it. It stays in
force after its nextUpdate: a list that nobody renewed must not let back in whom it shut out, nor shut out everybody
else. Peers are looked up after their handshake, so that every TLS stack has this, and a peer is told why.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from streams.errors import ConfigError, Problem
from streams.security.endpoint import CertificateId, Files
from streams.security.pki import Authority, PkiError, write

_UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm)
"""What the library raises for files that it cannot use."""


class Revoked:
    """The serial numbers on all lists, by the authority that revoked them."""

    def __init__(self, serials: dict[bytes, frozenset[int]], next_updates: dict[bytes, datetime.datetime]) -> None:
        self._serials = serials
        self._next_updates = next_updates
        """When each authority promised its next list."""

    @classmethod
    def load(cls, paths: Iterable[Path], trusted: Sequence[Files]) -> Revoked:
        """Read lists of authorities whose certificates are in the `ca` files. ConfigError for one that is no use."""
        authorities = [one for files in trusted for one in _certificates(files)]
        serials: dict[bytes, frozenset[int]] = {}
        next_updates: dict[bytes, datetime.datetime] = {}
        for path in paths:
            found = _list(path)
            if not any(_signed_by(found, authority) for authority in authorities):
                text = f"no authority of the `ca` files has signed it (its issuer is {found.issuer.rfc4514_string()})"
                raise ConfigError([Problem(path, "crl", text)])
            name = found.issuer.public_bytes()
            serials[name] = serials.get(name, frozenset()) | {each.serial_number for each in found}
            end = found.next_update_utc or datetime.datetime.max.replace(tzinfo=datetime.UTC)
            next_updates[name] = max(end, next_updates.get(name, end))
        return cls(serials, next_updates)

    @property
    def next_update(self) -> datetime.datetime | None:
        """When the first list is due to be renewed; None without lists."""
        return min(self._next_updates.values(), default=None)

    def overdue(self, now: datetime.datetime) -> int:
        """How many authorities have not renewed their list in time."""
        return sum(end <= now for end in self._next_updates.values())

    def why(self, chain: Sequence[CertificateId], *, required: bool, now: datetime.datetime) -> str:
        """Why a peer with this chain is refused; empty if it is not.

        `required`: its own certificate must be on the side of a list that is not past its nextUpdate.
        """
        for certificate in chain:
            if certificate.serial in self._serials.get(certificate.issuer, ()):
                return f"the certificate with serial number {certificate.serial:x} was revoked"
        if required and (not chain or self._next_updates.get(chain[0].issuer, now) <= now):
            return "there is no revocation list in force of the authority that issued the certificate"
        return ""


NONE = Revoked({}, {})


def revoke(authority: Authority, certificates: Sequence[x509.Certificate], *, days: int) -> tuple[Path, int]:
    """Add certificates to the authority's list, crl.pem, and renew it; returns its path and how many are on it.

    PkiError for a certificate of another authority, or a list that cannot be read.
    """
    path = authority.directory / "crl.pem"
    now = datetime.datetime.now(datetime.UTC)
    try:
        before = list(_list(path)) if path.exists() else []
    except ConfigError as error:
        raise PkiError(str(error)) from error
    known = {each.serial_number for each in before}
    for certificate in certificates:
        try:
            certificate.verify_directly_issued_by(authority.certificate)
        except (InvalidSignature, *_UNREADABLE) as error:
            name = certificate.subject.rfc4514_string()
            raise PkiError(f"{name} was not issued by the authority in {path.parent}") from error
        if certificate.serial_number not in known:
            builder = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number)
            before.append(builder.revocation_date(now).build())
    lists = x509.CertificateRevocationListBuilder().last_update(now).next_update(now + datetime.timedelta(days=days))
    lists = lists.add_extension(x509.CRLNumber(int(now.timestamp() * 1000)), critical=False)
    for each in before:
        lists = lists.add_revoked_certificate(each)
    write(path, authority.sign_list(lists).public_bytes(serialization.Encoding.PEM), force=True)
    return path, len(before)


def _certificates(files: Files) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(files.ca.read_bytes())
    except (OSError, *_UNREADABLE) as error:
        raise ConfigError([Problem(files.ca, f"{files.section}.ca", f"cannot be used: {error}")]) from error


def _list(path: Path) -> x509.CertificateRevocationList:
    try:
        data = path.read_bytes()
        pem = data.lstrip().startswith(b"-----")
        return x509.load_pem_x509_crl(data) if pem else x509.load_der_x509_crl(data)
    except (OSError, *_UNREADABLE) as error:
        raise ConfigError([Problem(path, "crl", f"cannot be read as a revocation list: {error}")]) from error


def _signed_by(found: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    try:
        return found.issuer == authority.subject and found.is_signature_valid(authority.public_key())  # type: ignore[arg-type]
    except _UNREADABLE:
        return False
