"""ML-KEM-512, for measurements alone: as key-exchange group and as a certificate's key of our TLS 1.3.

The published sizes of KEMTLS are those of this parameter set, which the product does not offer and `cryptography` does
not know: `pqcrypto` computes it, and a certificate gets its key in place of another one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from cryptography import x509
from pqcrypto.kem import ml_kem_512

from bench.handshakes.der import BIT_STRING, KEY_IN_TBS, SEQUENCE, encode, key_bits, parts
from streams.security.chains import certificate_scheme
from streams.security.tls13.certificates import Peer, Trust, now
from streams.security.tls13.groups import GROUP_NAMES, GROUPS
from streams.security.tls13.kem import KEMS, Kem

GROUP = 0x0200
SCHEME = 0xFE04
_ALGORITHM = bytes.fromhex("300b0609608648016503040401")
"""AlgorithmIdentifier id-alg-ml-kem-512 (RFC 9935)."""


class PublicKey:
    """An encapsulation key."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    def encapsulate(self) -> tuple[bytes, bytes]:
        ciphertext, secret = ml_kem_512.encaps(self.raw)
        return secret, ciphertext


class PrivateKey:
    """A pair."""

    def __init__(self) -> None:
        self._public, self._private = ml_kem_512.keygen()

    def public_key(self) -> PublicKey:
        return PublicKey(self._public)

    def decapsulate(self, ciphertext: bytes) -> bytes:
        secret: bytes = ml_kem_512.decaps(self._private, ciphertext)
        return secret


class _Pair:
    def __init__(self) -> None:
        self._key = PrivateKey()
        self.share = self._key.public_key().raw

    def agree(self, answer: bytes) -> bytes:
        return self._key.decapsulate(answer)


class _Group:
    def generate(self) -> _Pair:
        return _Pair()

    def respond(self, share: bytes) -> tuple[bytes, bytes]:
        secret, ciphertext = PublicKey(share).encapsulate()
        return ciphertext, secret


@contextmanager
def known() -> Iterator[None]:
    """Within, our TLS 1.3 has this group and this KEM."""
    GROUPS[GROUP], GROUP_NAMES[GROUP] = _Group(), "MLKEM512"
    KEMS[SCHEME] = Kem(SCHEME, "ML-KEM-512", PublicKey, PrivateKey, 768)
    try:
        yield
    finally:
        del GROUPS[GROUP], GROUP_NAMES[GROUP], KEMS[SCHEME]


class BenchTrust(Trust):
    """Verifies chains as always, and takes the key of this kind from a leaf."""

    def verify(self, chain: Sequence[bytes], host: str | None) -> Peer:
        leaf, *others = [x509.load_der_x509_certificate(der) for der in chain]
        verified = self._path(leaf, others, host, now(), kem=True)
        schemes = tuple(map(certificate_scheme, verified, verified[1:]))
        return Peer(leaf, PublicKey(key_bits(chain[0])), schemes, leaf.not_valid_after_utc)


def with_key(placeholder: x509.Certificate, key: PublicKey, signer: Any) -> bytes:
    """The certificate with another key of this kind in it, signed again by its issuer (an ML-DSA key)."""
    fields = parts(placeholder.tbs_certificate_bytes)
    fields[KEY_IN_TBS] = encode(SEQUENCE, _ALGORITHM + encode(BIT_STRING, b"\0" + key.raw))
    signed = encode(SEQUENCE, b"".join(fields))
    return encode(SEQUENCE, signed + fields[2] + encode(BIT_STRING, b"\0" + signer.sign(signed)))
