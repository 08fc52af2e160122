"""Delegated credentials (RFC 9345): a leaf signs a short-lived key, and the handshake proves that one instead.

    Credential            u32 valid_time, u16 dc_cert_verify_algorithm, u24 length, DER SubjectPublicKeyInfo
    DelegatedCredential   Credential, u16 algorithm, u16 length, signature

`valid_time` counts seconds from the leaf's notBefore. The identity stays the leaf's. It travels in the extension of
the first certificate alone. A KEM's key in one is an extension of our own, as in the experiment of 2021.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from streams.security.pki import DELEGATION_USAGE
from streams.security.tls13.alerts import Abort, illegal
from streams.security.tls13.codec import Reader, vector
from streams.security.tls13.kem import KEMS
from streams.security.tls13.schemes import SCHEMES, Signer

SERVER, CLIENT = "server", "client"
MAX_LIFETIME = datetime.timedelta(days=7)
ISSUED_LIFETIME = datetime.timedelta(hours=24)
"""RFC 9345 allows seven days; ours live for one."""


class Delegated(msgspec.Struct, frozen=True):
    """A credential of our own, encoded; it may be sent until `until`."""

    raw: bytes
    scheme: int
    algorithm: int
    until: datetime.datetime

    def fits(self, schemes: Sequence[int], algorithms: Sequence[int], now: datetime.datetime) -> bool:
        """Whether a peer that offered these accepts it."""
        return self.scheme in schemes and self.algorithm in algorithms and now < self.until


class DelegatedCredential(msgspec.Struct, frozen=True):
    """A credential with the leaf's signature."""

    valid_time: int
    scheme: int
    """The delegated key's own: a signature scheme, or a KEM."""
    spki: bytes
    algorithm: int
    """The signature scheme of the leaf."""
    signature: bytes = b""

    def credential(self) -> bytes:
        return self.valid_time.to_bytes(4) + self.scheme.to_bytes(2) + vector(3, self.spki)

    def encode(self) -> bytes:
        return self.credential() + self.algorithm.to_bytes(2) + vector(2, self.signature)

    def signed_content(self, side: str, leaf: bytes) -> bytes:
        """Section 4: bound to the role, the leaf and the scheme."""
        context = b" " * 64 + f"TLS, {side} delegated credentials".encode() + b"\0"
        return context + leaf + self.credential() + self.algorithm.to_bytes(2)


def parse(body: bytes) -> DelegatedCredential:
    reader = Reader(body, "delegated_credential")
    found = DelegatedCredential(
        valid_time=reader.u32(),
        scheme=reader.u16(),
        spki=reader.vector(3, least=1),
        algorithm=reader.u16(),
        signature=reader.vector(2, least=1),
    )
    reader.end()
    return found


def issue(
    side: str,
    leaf: x509.Certificate,
    signer: Signer,
    scheme: int,
    public_key: Any,
    *,
    now: datetime.datetime,
    lifetime: datetime.timedelta = ISSUED_LIFETIME,
) -> Delegated:
    """Make a credential. `signer` has the leaf's key, which signs with its first scheme."""
    spki = public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    valid_time = int((now + lifetime - leaf.not_valid_before_utc).total_seconds())
    unsigned = DelegatedCredential(valid_time, scheme, spki, signer.schemes[0])
    content = unsigned.signed_content(side, leaf.public_bytes(serialization.Encoding.DER))
    signed = msgspec.structs.replace(unsigned, signature=signer.sign(unsigned.algorithm, content))
    return Delegated(signed.encode(), scheme, unsigned.algorithm, now + lifetime)


def check(
    body: bytes,
    side: str,
    leaf: x509.Certificate,
    *,
    now: datetime.datetime,
    schemes: Sequence[int],
    algorithms: Sequence[int],
) -> tuple[DelegatedCredential, Any]:
    """Section 4.1.3, after the leaf's chain and name have been verified. Returns the credential and its key.

    `schemes` were offered for the delegated key and `algorithms` for the leaf's signature; each failure has its own
    text, and all are an illegal_parameter.
    """
    found = parse(body)
    _check_time(found, leaf, now)
    if found.scheme not in schemes:
        raise _wrong(f"its scheme {found.scheme:#06x} was not offered")
    scheme = SCHEMES.get(found.algorithm)
    if found.algorithm not in algorithms or scheme is None or not scheme.fits(leaf.public_key()):
        raise _wrong(f"its algorithm {found.algorithm:#06x} was not offered or is not the certificate's")
    _check_usage(leaf)
    content = found.signed_content(side, leaf.public_bytes(serialization.Encoding.DER))
    try:
        leaf.public_key().verify(found.signature, content, *scheme.arguments)  # type: ignore[union-attr]
    except (InvalidSignature, ValueError):
        raise _wrong("its signature is wrong") from None
    return found, _key(found)


def _check_time(found: DelegatedCredential, leaf: x509.Certificate, now: datetime.datetime) -> None:
    try:
        end = leaf.not_valid_before_utc + datetime.timedelta(seconds=found.valid_time)
    except OverflowError:
        raise _wrong("its lifetime is too long") from None
    if now > end:
        raise _wrong("it has expired")
    if end > now + MAX_LIFETIME:
        raise _wrong("its lifetime is too long")


def _check_usage(leaf: x509.Certificate) -> None:
    """Section 4.2: the leaf must permit delegation, and signatures."""
    try:
        leaf.extensions.get_extension_for_oid(DELEGATION_USAGE)
        signs = leaf.extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature
    except x509.ExtensionNotFound:
        signs = False
    if not signs:
        raise _wrong("the certificate does not permit delegation")


def _key(found: DelegatedCredential) -> Any:
    """The delegated key, of the kind that its scheme says."""
    try:
        key = serialization.load_der_public_key(found.spki)
    except (ValueError, UnsupportedAlgorithm):
        raise _wrong("its key cannot be read") from None
    if isinstance(key, rsa.RSAPublicKey):
        raise _wrong("its key is of rsaEncryption")
    kem, scheme = KEMS.get(found.scheme), SCHEMES.get(found.scheme)
    if (kem is not None and isinstance(key, kem.public)) or (scheme is not None and scheme.fits(key)):
        return key
    raise _wrong("its key is not of its scheme")


def _wrong(text: str) -> Abort:
    refusal = illegal(f"peer's delegated credential: {text}")
    refusal.reason = "delegated_credential"
    return refusal
