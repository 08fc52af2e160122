"""Chains of certificates for measurements: root, perhaps an intermediate, and leaves with keys of any kind."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, mldsa, mlkem, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bench.handshakes import mlkem512
from streams.security.tls13.certificates import KEM_USAGE

KEYS: Mapping[str, Callable[[], Any]] = {
    "ECDSA": lambda: ec.generate_private_key(ec.SECP256R1()),
    "RSA-2048": lambda: rsa.generate_private_key(65537, 2048),
    "ML-DSA-44": mldsa.MLDSA44PrivateKey.generate,
    "ML-DSA-65": mldsa.MLDSA65PrivateKey.generate,
    "ML-KEM-768": mlkem.MLKEM768PrivateKey.generate,
    "ML-KEM-512": mlkem512.PrivateKey,
}
_DAYS = datetime.timedelta(days=1)


class Authority:
    """A CA with a key of some kind; an intermediate if it has a parent. `chain` is sent after a leaf of it."""

    def __init__(self, kind: str, parent: Authority | None = None) -> None:
        self._key = KEYS[kind]()
        issuer = parent or self
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root" if parent is None else "intermediate")])
        signing = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        builder = (
            _builder(self.name, issuer, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(signing, critical=True)
        )
        self.certificate = issuer.sign(builder)
        self.chain: tuple[bytes, ...] = () if parent is None else (der(self.certificate), *parent.chain)

    @property
    def public_key(self) -> Any:
        return self._key.public_key()

    def sign(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        classical = isinstance(self._key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
        return builder.sign(self._key, hashes.SHA256() if classical else None)

    def leaf(self, kind: str, name: str) -> tuple[tuple[bytes, ...], Any]:
        """A leaf's chain in DER and its key; for a client if it is named by a URI."""
        key, client = KEYS[kind](), ":" in name
        stands_in = KEYS["ML-KEM-768"]().public_key() if kind == "ML-KEM-512" else key.public_key()
        names = [x509.UniformResourceIdentifier(name) if client else x509.DNSName(name)]
        purpose = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        signing = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
        leaf = self.sign(
            _builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "leaf")]), self, stands_in)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(KEM_USAGE if kind.startswith("ML-KEM") else signing, critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        )
        first = mlkem512.with_key(leaf, key.public_key(), self._key) if kind == "ML-KEM-512" else der(leaf)
        return (first, *self.chain), key


def _builder(subject: x509.Name, issuer: Authority, key: Any) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.name)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAYS)
        .not_valid_after(now + _DAYS)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key), critical=False)
    )


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)
