"""Signature schemes (RFC 8446 section 4.2.3, draft-ietf-tls-mldsa): which key signs how.

A scheme fixes the kind of key, the curve and the hash, so that a signature never verifies under a scheme that was
not announced.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, padding, rsa

from streams.security.tls13.alerts import Abort, Alert, illegal


class Scheme(msgspec.Struct, frozen=True):
    """One scheme: its number, IANA's name, which public keys it fits, and the library's arguments after the data."""

    code: int
    name: str
    fits: Callable[[object], bool]
    arguments: tuple[Any, ...] = ()


def _ecdsa(code: int, name: str, curve: type[ec.EllipticCurve], digest: hashes.HashAlgorithm) -> Scheme:
    def fits(key: object) -> bool:
        return isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, curve)

    return Scheme(code, name, fits, (ec.ECDSA(digest),))


def _pss(code: int, name: str, digest: hashes.HashAlgorithm) -> Scheme:
    scheme = padding.PSS(mgf=padding.MGF1(digest), salt_length=padding.PSS.DIGEST_LENGTH)
    return Scheme(code, name, lambda key: isinstance(key, rsa.RSAPublicKey), (scheme, digest))


def _plain(code: int, name: str, kind: type) -> Scheme:
    return Scheme(code, name, lambda key: isinstance(key, kind))


SCHEMES: dict[int, Scheme] = {
    scheme.code: scheme
    for scheme in (
        _ecdsa(0x0403, "ecdsa_secp256r1_sha256", ec.SECP256R1, hashes.SHA256()),
        _ecdsa(0x0503, "ecdsa_secp384r1_sha384", ec.SECP384R1, hashes.SHA384()),
        _pss(0x0804, "rsa_pss_rsae_sha256", hashes.SHA256()),
        _pss(0x0805, "rsa_pss_rsae_sha384", hashes.SHA384()),
        _pss(0x0806, "rsa_pss_rsae_sha512", hashes.SHA512()),
        _plain(0x0807, "ed25519", ed25519.Ed25519PublicKey),
        _plain(0x0904, "mldsa44", mldsa.MLDSA44PublicKey),
        _plain(0x0905, "mldsa65", mldsa.MLDSA65PublicKey),
        _plain(0x0906, "mldsa87", mldsa.MLDSA87PublicKey),
    )
}
SCHEME_CODES = {scheme.name: code for code, scheme in SCHEMES.items()}
CHAIN_SCHEMES = {code: scheme.name for code, scheme in SCHEMES.items()} | {
    0x0401: "rsa_pkcs1_sha256",
    0x0501: "rsa_pkcs1_sha384",
    0x0601: "rsa_pkcs1_sha512",
}
"""Also those that only certificates may be signed with."""


class Signer(Protocol):
    """Holds a leaf's private key, in memory or elsewhere."""

    @property
    def schemes(self) -> tuple[int, ...]:
        """The schemes that it can sign with, best first."""

    def sign(self, scheme: int, content: bytes) -> bytes: ...


class KeySigner:
    """A private key in memory; ValueError for a kind that no scheme fits."""

    def __init__(self, key: Any) -> None:
        self._key, self.public_key = key, key.public_key()
        self.schemes = schemes_of(self.public_key)
        if not self.schemes:
            raise ValueError(f"no signature scheme of TLS 1.3 fits a {type(key).__name__}")

    def sign(self, scheme: int, content: bytes) -> bytes:
        signature: bytes = self._key.sign(content, *SCHEMES[scheme].arguments)
        return signature


def schemes_of(public_key: object) -> tuple[int, ...]:
    """The schemes that fit a public key."""
    return tuple(code for code, scheme in SCHEMES.items() if scheme.fits(public_key))


def verify(code: int, public_key: Any, signature: bytes, content: bytes) -> None:
    """Check a signature; a wrong one is a decrypt_error, a scheme that does not fit the key an illegal_parameter."""
    scheme = SCHEMES.get(code)
    if scheme is None or not scheme.fits(public_key):
        raise illegal(f"signature scheme {code:#06x} does not fit the certificate's key")
    try:
        public_key.verify(signature, content, *scheme.arguments)
    except (InvalidSignature, ValueError):
        raise Abort(Alert.DECRYPT_ERROR, "the peer's signature over the handshake is wrong") from None
