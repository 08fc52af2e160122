"""KEMs as long-term keys: which key has which scheme, and the message that carries a ciphertext.

The scheme numbers are of the private-use range and handshake type 30 is from an expired draft
(draft-celi-wiggers-tls-authkem): only this stack knows them.
"""

from __future__ import annotations

from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric import mlkem

from streams.security.tls13.alerts import illegal
from streams.security.tls13.codec import Reader, vector
from streams.security.tls13.messages import message
from streams.security.tls13.names import HandshakeType


class Kem(msgspec.Struct, frozen=True):
    """One KEM: its number among the signature schemes, FIPS 203's name, and the length of its ciphertext."""

    code: int
    name: str
    public: type
    private: type
    ciphertext_bytes: int


KEMS: dict[int, Kem] = {
    kem.code: kem
    for kem in (
        Kem(0xFE02, "ML-KEM-768", mlkem.MLKEM768PublicKey, mlkem.MLKEM768PrivateKey, 1088),
        Kem(0xFE03, "ML-KEM-1024", mlkem.MLKEM1024PublicKey, mlkem.MLKEM1024PrivateKey, 1568),
    )
}
_kinds: dict[type, Kem | None] = {}
"""What `kem_of` has found for each type of key: the library's own types are recognised slowly."""
KEM_CODES = {kem.name: code for code, kem in KEMS.items()}


def kem_of(public_key: object) -> Kem | None:
    """The KEM of a certificate's key; None if it is a key of another kind."""
    kind = type(public_key)
    if kind not in _kinds:
        _kinds[kind] = next((kem for kem in KEMS.values() if issubclass(kind, kem.public)), None)
    return _kinds[kind]


def encapsulate(public_key: Any) -> tuple[bytes, bytes]:
    """A ciphertext for this key, and the secret in it."""
    secret, ciphertext = public_key.encapsulate()
    return ciphertext, secret


class KemKey:
    """Our long-term private key; ValueError for a key of another kind."""

    def __init__(self, key: Any) -> None:
        found = kem_of(key.public_key())
        if found is None:
            raise ValueError(f"a {type(key).__name__} is not a KEM's key")
        self._key, self.kem = key, found

    def decapsulate(self, ciphertext: bytes) -> bytes:
        """The secret; for a forged ciphertext a random-looking one, and nothing here branches on which it is."""
        if len(ciphertext) != self.kem.ciphertext_bytes:
            raise illegal(f"{self.kem.name} ciphertext of {len(ciphertext)} bytes")
        secret: bytes = self._key.decapsulate(ciphertext)
        return secret


def encode_encapsulation(ciphertext: bytes) -> bytes:
    """KEMEncapsulation; its context is that of the Certificate it answers, which is empty during the handshake."""
    return message(HandshakeType.KEM_ENCAPSULATION, vector(1, b"") + vector(2, ciphertext))


def parse_encapsulation(body: bytes) -> bytes:
    """The ciphertext."""
    reader = Reader(body, "kem_encapsulation")
    context, ciphertext = reader.vector(1), reader.vector(2)
    reader.end()
    if context:
        raise illegal("kem_encapsulation with a context")
    return ciphertext
