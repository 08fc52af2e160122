"""Cipher suites (RFC 8446 appendix B.4): which AEAD, which hash, how long the key is."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

Aead = AESGCM | ChaCha20Poly1305

TAG_BYTES = 16
IV_BYTES = 12


class Suite(msgspec.Struct, frozen=True):
    """One suite: IANA's number and name, hashlib's name of its hash, and its AEAD."""

    code: int
    name: str
    hash: str
    hash_bytes: int
    key_bytes: int
    aead: Callable[[bytes], Aead]


SUITES: dict[int, Suite] = {
    suite.code: suite
    for suite in (
        Suite(0x1301, "TLS_AES_128_GCM_SHA256", "sha256", 32, 16, AESGCM),
        Suite(0x1302, "TLS_AES_256_GCM_SHA384", "sha384", 48, 32, AESGCM),
        Suite(0x1303, "TLS_CHACHA20_POLY1305_SHA256", "sha256", 32, 32, ChaCha20Poly1305),
    )
}
"""Best first."""
