"""A small private certificate authority: one root, leaves for receivers and forwarders, and the grant key.

A directory holds `ca.pem`, `ca.key`, `grant.key`, and a pair `NAME.pem` / `NAME.key` for every leaf. Keys have mode
0600 from their first byte and are overwritten only on request (`--force`). `KEYS` lists the kinds of key; which kind a
mode demands, of the leaf and of the authority, is in `modes.py`.

Certificates always carry a SubjectAlternativeName, an AuthorityKeyIdentifier and a keyUsage: OpenSSL does without
them, but other verifiers of certificate chains do not.
"""

from __future__ import annotations

import datetime
import ipaddress
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, mldsa, mlkem, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, SignatureAlgorithmOID

from streams.errors import PipelineError
from streams.files import create_file
from streams.security.endpoint import CertificateId

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | mldsa.MLDSA44PrivateKey | mldsa.MLDSA65PrivateKey
PublicKey = (
    ec.EllipticCurvePublicKey
    | rsa.RSAPublicKey
    | mldsa.MLDSA44PublicKey
    | mldsa.MLDSA65PublicKey
    | mlkem.MLKEM768PublicKey
)

KEYS: Mapping[str, Callable[[], PrivateKey]] = {
    "ec": lambda: ec.generate_private_key(ec.SECP256R1()),
    "rsa": lambda: rsa.generate_private_key(65537, 3072),
    "mldsa65": mldsa.MLDSA65PrivateKey.generate,
    "mldsa44": mldsa.MLDSA44PrivateKey.generate,
}
"""The kinds of key by their name on the command line: ECDSA P-256, RSA 3072, ML-DSA of FIPS 204."""

LEAF_KEYS: Mapping[str, Callable[[], PrivateKey | mlkem.MLKEM768PrivateKey]] = {
    **KEYS,
    "mlkem768": mlkem.MLKEM768PrivateKey.generate,
}
"""Those of leaves: also ML-KEM of FIPS 203, which signs nothing and so cannot be an authority's."""

DELEGATES = {kind: make for kind, make in LEAF_KEYS.items() if kind != "rsa"}
"""Those that a leaf may delegate to: RFC 9345 refuses keys of rsaEncryption."""
DELEGATION_USAGE = x509.ObjectIdentifier("1.3.6.1.4.1.44363.44")
"""The extension of a leaf that may delegate (RFC 9345 section 4.2)."""

_SIGNATURES = {
    SignatureAlgorithmOID.ECDSA_WITH_SHA256: "ECDSA with SHA-256",
    SignatureAlgorithmOID.ECDSA_WITH_SHA384: "ECDSA with SHA-384",
    SignatureAlgorithmOID.ECDSA_WITH_SHA512: "ECDSA with SHA-512",
    SignatureAlgorithmOID.RSA_WITH_SHA256: "RSA with SHA-256",
    SignatureAlgorithmOID.RSA_WITH_SHA384: "RSA with SHA-384",
    SignatureAlgorithmOID.RSA_WITH_SHA512: "RSA with SHA-512",
    SignatureAlgorithmOID.RSASSA_PSS: "RSA-PSS",
    SignatureAlgorithmOID.ED25519: "Ed25519",
    SignatureAlgorithmOID.ML_DSA_44: "ML-DSA-44",
    SignatureAlgorithmOID.ML_DSA_65: "ML-DSA-65",
    SignatureAlgorithmOID.ML_DSA_87: "ML-DSA-87",
}

ROLES = {
    "forwarder": [ExtendedKeyUsageOID.CLIENT_AUTH],
    "receiver": [ExtendedKeyUsageOID.SERVER_AUTH],
    "both": [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH],
}
"""The sides of a handshake that a leaf may be shown on. A receiver is a client of its Kafka brokers."""

CA_DAYS = 3650
BACKDATE = datetime.timedelta(minutes=5)
"""Leaves are valid from a little before their creation, because the clocks of hosts differ."""


class PkiError(PipelineError):
    """A file of the authority cannot be written or used; the text names the file and the remedy."""


class LeafFiles(msgspec.Struct, frozen=True):
    """The files of a leaf."""

    certificate: Path
    key: Path


class Leaf(msgspec.Struct, frozen=True):
    """A leaf and its key, as PEM."""

    certificate: bytes
    key: bytes


class Authority:
    """A loaded authority, which can issue leaves."""

    def __init__(self, directory: Path, certificate: x509.Certificate, key: PrivateKey) -> None:
        self.directory = directory
        self.certificate = certificate
        self._key = key

    @classmethod
    def new(cls, directory: Path, *, name: str, kind: str = "ec") -> Authority:
        """Make a root in memory alone. `kind`: one of `KEYS`."""
        key = KEYS[kind]()
        start = datetime.datetime.now(datetime.UTC) - BACKDATE
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            _builder(name, subject, key.public_key(), start, start + datetime.timedelta(days=CA_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, _digest(key))
        )
        return cls(directory, certificate, key)

    @classmethod
    def load(cls, directory: Path) -> Authority:
        try:
            certificate = x509.load_pem_x509_certificate((directory / "ca.pem").read_bytes())
            key = serialization.load_pem_private_key((directory / "ca.key").read_bytes(), None)
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise PkiError(
                f"{directory}: no usable authority here ({error}); create one with `logfwd pki init`"
            ) from error
        if not isinstance(key, PrivateKey):
            kind = type(key).__name__.removesuffix("PrivateKey")
            raise PkiError(
                f"{directory / 'ca.key'}: a key of the kind {kind} cannot be used; "
                f"create an authority with `logfwd pki init --key {'|'.join(KEYS)}`"
            )
        return cls(directory, certificate, key)

    def issue(
        self,
        *,
        identities: Sequence[str],
        hosts: Sequence[str],
        out: Path,
        kind: str = "ec",
        days: int = 90,
        not_before: datetime.datetime | None = None,
        delegates: bool = False,
        role: str = "",
        force: bool = False,
    ) -> LeafFiles:
        """Write a leaf and its key to OUT.pem and OUT.key; see `leaf`."""
        leaf = self.leaf(
            identities=identities,
            hosts=hosts,
            kind=kind,
            days=days,
            not_before=not_before,
            delegates=delegates,
            role=role,
        )
        files = LeafFiles(out.with_name(out.name + ".pem"), out.with_name(out.name + ".key"))
        write(files.key, leaf.key, private=True, force=force)
        write(files.certificate, leaf.certificate, force=True)
        return files

    def leaf(
        self,
        *,
        identities: Sequence[str],
        hosts: Sequence[str],
        kind: str = "ec",
        days: int = 90,
        not_before: datetime.datetime | None = None,
        delegates: bool = False,
        role: str = "",
    ) -> Leaf:
        """A leaf and its key, in memory. Identities with a colon are URIs, others are DNS names.

        `kind`: one of `LEAF_KEYS`. `role`: one of `ROLES`, for which peers accept it; without one, a receiver's if it
        has hosts, else a forwarder's. One that delegates may sign delegated credentials (`tls13/delegated.py`).
        """
        role = role or ("receiver" if hosts else "forwarder")
        if kind == "mlkem768" and len(ROLES[role]) > 1:
            raise PkiError("a certificate with --key mlkem768 is for one role; issue one for each")
        if delegates and kind not in KEYS:
            raise PkiError(f"a certificate with --key {kind} cannot delegate: its key signs nothing")
        try:
            names = _names(identities, hosts)
        except ValueError as error:
            raise PkiError(f"an identity or host cannot be a name: {error}") from error
        if not names:
            raise PkiError("a leaf needs at least one identity or host")
        start = not_before or datetime.datetime.now(datetime.UTC) - BACKDATE
        end = start + datetime.timedelta(days=days) + (BACKDATE if not_before is None else datetime.timedelta())
        key = LEAF_KEYS[kind]()
        subject = (list(identities) or list(hosts))[0][:64]
        usage = _usage(key_encipherment=kind == "mlkem768", digital_signature=kind != "mlkem768")  # RFC 9935
        builder = (
            _builder(subject, self.certificate.subject, key.public_key(), start, end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(usage, critical=True)
            .add_extension(x509.ExtendedKeyUsage(ROLES[role]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if delegates:
            null = b"\x05\x00"
            builder = builder.add_extension(x509.UnrecognizedExtension(DELEGATION_USAGE, null), critical=False)
        leaf = builder.sign(self._key, _digest(self._key))
        return Leaf(leaf.public_bytes(serialization.Encoding.PEM), pem_of(key))

    def sign_list(self, builder: x509.CertificateRevocationListBuilder) -> x509.CertificateRevocationList:
        """A revocation list in this authority's name."""
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        named = builder.issuer_name(self.certificate.subject).add_extension(issuer, critical=False)
        return named.sign(self._key, _digest(self._key))

    def pem(self) -> bytes:
        """The root's certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)


def create_authority(
    directory: Path, *, name: str = "logfwd private CA", kind: str = "ec", force: bool = False
) -> Authority:
    """Create a root and the first grant key in a directory that only its owner may enter. `kind`: one of `KEYS`."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise PkiError(f"{directory} cannot be created: {error}") from error
    authority = Authority.new(directory, name=name, kind=kind)
    write(directory / "ca.key", pem_of(authority._key), private=True, force=force)
    write(directory / "ca.pem", authority.pem(), force=True)
    grant = f"{secrets.token_hex(4)}:{secrets.token_hex(32)}\n".encode()
    write(directory / "grant.key", grant, private=True, force=force)
    return authority


def key_algorithm(certificate: x509.Certificate) -> str:
    """The kind of key in a certificate: "EC secp256r1", "RSA 3072", "ML-DSA-65", "ML-KEM-768"."""
    try:
        return key_name(certificate.public_key())
    except (UnsupportedAlgorithm, ValueError):
        return certificate.public_key_algorithm_oid.dotted_string


def key_name(key: object) -> str:
    """The kind of a public key, spelled likewise."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"EC {key.curve.name}"
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size}"
    return type(key).__name__.removesuffix("PublicKey").replace("MLDSA", "ML-DSA-").replace("MLKEM", "ML-KEM-")


def identities(leaf: x509.Certificate) -> tuple[str, ...]:
    """The names that a certificate speaks for: its URIs, then its DNS names."""
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return (*uris, *names.get_values_for_type(x509.DNSName))


def certificate_id(certificate: x509.Certificate) -> CertificateId:
    """What a revocation list knows it by."""
    return CertificateId(certificate.issuer.public_bytes(), certificate.serial_number)


def signature_algorithm(certificate: x509.Certificate) -> str:
    """How a certificate is signed: "ECDSA with SHA-256", "ML-DSA-65"; the OID of an algorithm not known here."""
    oid = certificate.signature_algorithm_oid
    return _SIGNATURES.get(oid) or oid.dotted_string


def _builder(
    subject: str, issuer: x509.Name, key: PublicKey, start: datetime.datetime, end: datetime.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )


def _names(identities: Sequence[str], hosts: Sequence[str]) -> list[x509.GeneralName]:
    if not all((*identities, *hosts)):
        raise ValueError("one is empty")
    names: list[x509.GeneralName] = [
        x509.UniformResourceIdentifier(name) if ":" in name else x509.DNSName(name) for name in identities
    ]
    for host in hosts:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    return names


def _usage(
    *,
    digital_signature: bool = False,
    key_encipherment: bool = False,
    key_cert_sign: bool = False,
    crl_sign: bool = False,
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_encipherment=key_encipherment,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _digest(key: PrivateKey) -> hashes.SHA256 | None:
    """The hash of a signature by this key; ML-DSA takes the message itself."""
    return hashes.SHA256() if isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) else None


def pem_of(key: PrivateKey | mlkem.MLKEM768PrivateKey) -> bytes:
    """A private key in PKCS #8."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def write(path: Path, data: bytes, *, private: bool = False, force: bool = False) -> None:
    """Write a file whole or not at all; a private one has mode 0600 from its first byte."""
    try:
        create_file(path, data, mode=0o600 if private else 0o644, replace=force)
    except FileExistsError as error:
        raise PkiError(f"{path} exists; use --force to replace it") from error
    except OSError as error:
        raise PkiError(f"{path} cannot be written: {error}") from error
