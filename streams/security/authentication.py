"""Signature schemes, and how strong each is against quantum computers. No I/O, no library.

A peer is authenticated by the weakest of its own key and every signature on the way to the trusted root: anyone who can
forge one certificate of a chain can be anyone below it (`chains.py`).
"""

from __future__ import annotations

from collections.abc import Iterable

_SCHEMES = {
    "EC secp256r1": "ecdsa_secp256r1_sha256",
    "EC secp384r1": "ecdsa_secp384r1_sha384",
    "EC secp521r1": "ecdsa_secp521r1_sha512",
    "Ed25519": "ed25519",
    "Ed448": "ed448",
    "ML-DSA-44": "mldsa44",
    "ML-DSA-65": "mldsa65",
    "ML-DSA-87": "mldsa87",
}
_STRENGTH = {"mldsa44": 2, "mldsa65": 3, "mldsa87": 5, "ML-KEM-768": 3, "ML-KEM-1024": 5}
"""NIST's categories of post-quantum strength (FIPS 204, table 1; FIPS 203, section 8); everything else is 0."""


def strength(scheme: str) -> int:
    """The category of a signature scheme against quantum computers; 0 for one that they break."""
    return _STRENGTH.get(scheme, 0)


def weakest(schemes: Iterable[str]) -> str:
    """The scheme that an attacker would choose; the first of equals."""
    return min(schemes, key=strength)


def signed_with(key: str) -> str:
    """The signature scheme (IANA's name) of a peer whose certificate has this kind of key.

    OpenSSL accepted only a scheme of the mode's list, but the bindings do not export which one it was. In TLS 1.3 an
    elliptic curve or an ML-DSA parameter set determines it (RFC 8446 §4.2.3). An RSA key does not: it is reported as
    rsa_pss_rsae_sha256, whatever the padding and hash were.
    """
    return "rsa_pss_rsae_sha256" if key.startswith("RSA") else _SCHEMES.get(key, key)
