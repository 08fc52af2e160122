"""Key exchange: each group makes a share, answers one, and takes an answer.

RFC 8446 section 4.2.8 and draft-ietf-tls-ecdhe-mlkem.

A hybrid's shares and secrets are its parts side by side: ML-KEM first in X25519MLKEM768, P-256 first in
SecP256r1MLKEM768. A share of the wrong length, a point that is not on the curve, a low-order result and an ML-KEM key
that is not canonical are all an illegal_parameter.
"""

from __future__ import annotations

from typing import Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, x25519

from streams.security.tls13.alerts import illegal

ENCAPSULATION_KEY_BYTES = 1184
CIPHERTEXT_BYTES = 1088
X25519_BYTES = 32
P256_BYTES = 65


class KeyPair(Protocol):
    """A client's secret while it waits for the answer."""

    @property
    def share(self) -> bytes: ...
    def agree(self, answer: bytes) -> bytes:
        """The shared secret."""


class Group(Protocol):
    """One way to agree on a secret."""

    def generate(self) -> KeyPair: ...
    def respond(self, share: bytes) -> tuple[bytes, bytes]:
        """Our share in answer to the client's, and the shared secret."""


# -- classical parts ---------------------------------------------------------------------------------------------


class X25519Pair:
    """RFC 7748; an all-zero result is refused by the library."""

    def __init__(self, key: x25519.X25519PrivateKey) -> None:
        self._key = key
        self.share = key.public_key().public_bytes_raw()

    def agree(self, answer: bytes) -> bytes:
        try:
            return self._key.exchange(x25519.X25519PublicKey.from_public_bytes(answer))
        except ValueError as error:
            raise illegal(f"X25519 share: {error}") from error


class P256Pair:
    """Uncompressed points; the library checks that a point is on the curve (RFC 8446 section 4.2.8.2)."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key
        self.share = key.public_key().public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        )

    def agree(self, answer: bytes) -> bytes:
        if len(answer) != P256_BYTES or answer[0] != 4:
            raise illegal("secp256r1 share is not an uncompressed point")
        try:
            peer = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), answer)
            return self._key.exchange(ec.ECDH(), peer)
        except ValueError as error:
            raise illegal(f"secp256r1 share: {error}") from error


class X25519Group:
    """RFC 7748."""

    share_bytes = X25519_BYTES

    def generate(self) -> X25519Pair:
        return X25519Pair(x25519.X25519PrivateKey.generate())

    def respond(self, share: bytes) -> tuple[bytes, bytes]:
        pair = self.generate()
        return pair.share, pair.agree(share)


class P256Group:
    """NIST P-256."""

    share_bytes = P256_BYTES

    def generate(self) -> P256Pair:
        return P256Pair(ec.generate_private_key(ec.SECP256R1()))

    def respond(self, share: bytes) -> tuple[bytes, bytes]:
        pair = self.generate()
        return pair.share, pair.agree(share)


# -- ML-KEM ------------------------------------------------------------------------------------------------------


def encapsulate(key: bytes) -> tuple[bytes, bytes]:
    """A ciphertext for an ML-KEM-768 key, and the secret in it (FIPS 203). The library checks the key's modulus."""
    try:
        secret, ciphertext = mlkem.MLKEM768PublicKey.from_public_bytes(key).encapsulate()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise illegal("the ML-KEM-768 key is not canonical") from error
    return ciphertext, secret


def decapsulate(key: mlkem.MLKEM768PrivateKey, ciphertext: bytes) -> bytes:
    """The secret; for a forged ciphertext a random-looking one, without any sign of it (implicit rejection)."""
    if len(ciphertext) != CIPHERTEXT_BYTES:
        raise illegal(f"ML-KEM-768 ciphertext of {len(ciphertext)} bytes")
    return key.decapsulate(ciphertext)


class HybridPair:
    """An ML-KEM-768 key and a classical one."""

    def __init__(self, group: HybridGroup, key: mlkem.MLKEM768PrivateKey, classical: X25519Pair | P256Pair) -> None:
        self._group, self._key, self._classical = group, key, classical
        self.share = group.joined(key.public_key().public_bytes_raw(), classical.share)

    def agree(self, answer: bytes) -> bytes:
        ciphertext, share = self._group.parted(answer, CIPHERTEXT_BYTES)
        secret = decapsulate(self._key, ciphertext)
        return self._group.joined(secret, self._classical.agree(share))


class HybridGroup:
    """ML-KEM-768 and a classical group, joined in the order of the draft."""

    def __init__(self, name: str, classical: X25519Group | P256Group, *, kem_first: bool) -> None:
        self._name, self._classical, self._kem_first = name, classical, kem_first

    def generate(self) -> HybridPair:
        return HybridPair(self, mlkem.MLKEM768PrivateKey.generate(), self._classical.generate())

    def respond(self, share: bytes) -> tuple[bytes, bytes]:
        key, peer = self.parted(share, ENCAPSULATION_KEY_BYTES)
        ours, classical_secret = self._classical.respond(peer)
        ciphertext, secret = encapsulate(key)
        return self.joined(ciphertext, ours), self.joined(secret, classical_secret)

    def joined(self, kem: bytes, classical: bytes) -> bytes:
        return kem + classical if self._kem_first else classical + kem

    def parted(self, data: bytes, kem_bytes: int) -> tuple[bytes, bytes]:
        """The ML-KEM part and the classical one."""
        classical_bytes = self._classical.share_bytes
        if len(data) != kem_bytes + classical_bytes:
            raise illegal(f"{self._name} share of {len(data)} bytes")
        if self._kem_first:
            return data[:kem_bytes], data[kem_bytes:]
        return data[classical_bytes:], data[:classical_bytes]


X25519, P256 = X25519Group(), P256Group()
GROUP_CODES = {"X25519MLKEM768": 0x11EC, "SecP256r1MLKEM768": 0x11EB, "X25519": 0x001D, "secp256r1": 0x0017}
"""By IANA's names, best first."""
GROUP_NAMES = {code: name for name, code in GROUP_CODES.items()}
GROUPS: dict[int, Group] = {
    0x0017: P256,
    0x001D: X25519,
    0x11EB: HybridGroup("SecP256r1MLKEM768", P256, kem_first=False),
    0x11EC: HybridGroup("X25519MLKEM768", X25519, kem_first=True),
}
HYBRID = frozenset({0x11EB, 0x11EC})
