"""Idempotency keys of requests, as sources know them. How the spool stores them: logfwd/spool/keys.py."""

from __future__ import annotations

import hashlib

import msgspec


class Key(msgspec.Struct, frozen=True):
    """How much of a request is durable.

    `progress`: offset in the decoded body up to which it is in the spool. `total`: length of the decoded body, once the
    last part is in the spool; None until then. `accepted`, `invalid`: records and invalid lines up to `progress`, so
    that a repeat gets the first answer. `digest`: of the body up to `progress`. `expires`: wall-clock second.
    """

    progress: int
    total: int | None
    accepted: int
    invalid: int
    digest: bytes
    expires: float

    @property
    def finished(self) -> bool:
        """True if the whole request is durable."""
        return self.total is not None


def key_hash(stream: str, client: str, key: bytes) -> bytes:
    """The hash that is stored: BLAKE2b-16 of the stream, the client's identity and the SHA-256 of the key."""
    hashed = hashlib.blake2b(digest_size=16)
    for part in (stream.encode(), client.encode()):
        hashed.update(len(part).to_bytes(4, "big") + part)
    hashed.update(hashlib.sha256(key).digest())
    return hashed.digest()
