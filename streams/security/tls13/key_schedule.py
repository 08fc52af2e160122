"""The key schedule (RFC 8446 section 7): HKDF, the chain of secrets, the transcript, and what is derived from them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec

from streams.security.tls13.codec import vector
from streams.security.tls13.names import HandshakeType
from streams.security.tls13.suites import IV_BYTES, Aead, Suite

_HASHES: dict[str, tuple[Callable[[bytes], Any], int]] = {
    "sha256": (hashlib.sha256, 64),
    "sha384": (hashlib.sha384, 128),
}
"""By name: the function, and the bytes of its block."""
_INNER, _OUTER = (bytes(byte ^ pad for byte in range(256)) for pad in (0x36, 0x5C))


def _hmac(hash_name: str, key: bytes, data: bytes) -> bytes:
    """HMAC (RFC 2104) with a key that fits into a block.

    Each side of a handshake computes thirty; `hmac.digest` takes twice as long, as it looks the hash up each time.
    """
    new, block = _HASHES[hash_name]
    padded = key.ljust(block, b"\0")
    digest: bytes = new(padded.translate(_OUTER) + new(padded.translate(_INNER) + data).digest()).digest()
    return digest


_FIRST = b"\x01"
"""HKDF-Expand's counter: one block is always enough."""


@cache
def _info(label: str, context_bytes: int, length: int) -> bytes:
    """HkdfLabel up to its context, of that many bytes."""
    return length.to_bytes(2) + vector(1, b"tls13 " + label.encode()) + context_bytes.to_bytes(1)


def extract(hash_name: str, salt: bytes, secret: bytes) -> bytes:
    """HKDF-Extract (RFC 5869 section 2.2)."""
    return _hmac(hash_name, salt, secret)


def expand_label(hash_name: str, secret: bytes, label: str, context: bytes, length: int) -> bytes:
    """HKDF-Expand-Label (section 7.1), up to the hash's own length."""
    data = _info(label, len(context), length) + context + _FIRST
    new, block = _HASHES[hash_name]  # as in _hmac, for most of its calls would come from here
    padded = secret.ljust(block, b"\0")
    digest: bytes = new(padded.translate(_OUTER) + new(padded.translate(_INNER) + data).digest()).digest()
    return digest[:length]


class Transcript:
    """The running hash over all handshake messages (section 4.4.1)."""

    def __init__(self, hash_name: str) -> None:
        self._name = hash_name
        self._running = _HASHES[hash_name][0](b"")

    def add(self, message: bytes) -> None:
        self._running.update(message)

    def hash(self) -> bytes:
        digest: bytes = self._running.copy().digest()
        return digest

    def replace_first_hello(self) -> None:
        """After a HelloRetryRequest its hash stands for the first ClientHello."""
        digest = self._running.digest()
        self._running = _HASHES[self._name][0](bytes((HandshakeType.MESSAGE_HASH,)) + vector(3, digest))


class TrafficKeys(msgspec.Struct, frozen=True):
    """Key and IV of one direction's records (section 7.3)."""

    aead: Aead
    iv: int


class KeySchedule:
    """The chain of secrets: early, handshake, main. `advance` mixes in the next input, `derive` uses it."""

    def __init__(self, suite: Suite, early: bytes | None = None) -> None:
        self.suite = suite
        self.zeros = bytes(suite.hash_bytes)
        self._empty = _HASHES[suite.hash][0](b"").digest()
        self._salt = b""
        """The next stage's, where it is known beforehand."""
        if early is None:
            self._secret, self._salt = _without_input(suite)
        else:
            self._secret = extract(suite.hash, self.zeros, early)

    def advance(self, secret: bytes | None = None) -> None:
        """The next of the three; without an input zeros stand for it."""
        salt, self._salt = self._salt or self.derive("derived", self._empty), b""
        self._secret = extract(self.suite.hash, salt, self.zeros if secret is None else secret)

    def derive(self, label: str, transcript_hash: bytes) -> bytes:
        """Derive-Secret, over a transcript that is hashed already."""
        return self.expand(self._secret, label, transcript_hash)

    def expand(self, secret: bytes, label: str, context: bytes = b"") -> bytes:
        return expand_label(self.suite.hash, secret, label, context, self.suite.hash_bytes)

    def verify_data(self, finished_key: bytes, transcript_hash: bytes) -> bytes:
        """The content of a Finished (section 4.4.4)."""
        return _hmac(self.suite.hash, finished_key, transcript_hash)

    def keyed_by_stage(self, label: str) -> bytes:
        """A key straight from the present stage, without a transcript, for KEMTLS's Finished."""
        return self.expand(self._secret, label)

    def finished_key(self, traffic_secret: bytes) -> bytes:
        return self.expand(traffic_secret, "finished")

    def forget(self) -> None:
        """Drop the present secret: everything has been derived."""
        self._secret = b""


@cache
def _without_input(suite: Suite) -> tuple[bytes, bytes]:
    """The early secret without an input and the salt that follows from it: the same in every handshake."""
    zeros, empty = bytes(suite.hash_bytes), _HASHES[suite.hash][0](b"").digest()
    early = extract(suite.hash, zeros, zeros)
    return early, expand_label(suite.hash, early, "derived", empty, suite.hash_bytes)


def traffic_keys(suite: Suite, secret: bytes) -> TrafficKeys:
    """Key and IV of a traffic secret (section 7.3)."""
    key = expand_label(suite.hash, secret, "key", b"", suite.key_bytes)
    return TrafficKeys(suite.aead(key), int.from_bytes(expand_label(suite.hash, secret, "iv", b"", IV_BYTES)))


def next_traffic_secret(suite: Suite, secret: bytes) -> bytes:
    """After a KeyUpdate (section 7.2)."""
    return expand_label(suite.hash, secret, "traffic upd", b"", suite.hash_bytes)
