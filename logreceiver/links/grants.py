"""Grants: how a forwarder shows that a producer id was handed to it, to a receiver that remembers nothing.

A forwarder that stamped another's producer id could fence that one off, or have its records taken for repeats. So a
grant is an HMAC over everything that the id was handed out for, under a key that all receivers of a cluster share.
Keys have ids: the first in the file signs, all of them are honoured, so keys can be rotated without interruption.
"""

from __future__ import annotations

import hmac
from pathlib import Path

import msgspec

from streams.errors import ConfigError, Problem

MIN_KEY_BYTES = 16


class Claim(msgspec.Struct, frozen=True):
    """What a grant covers."""

    identity: str
    stream: str
    cluster_id: str
    topic: str
    partition: int
    producer_id: int

    def encode(self) -> bytes:
        """Length-prefixed, so that no two claims encode to the same bytes."""
        parts = (self.identity, self.stream, self.cluster_id, self.topic, str(self.partition), str(self.producer_id))
        encoded = [part.encode() for part in parts]
        return b"logfwd grant v1" + b"".join(len(part).to_bytes(4, "big") + part for part in encoded)


class Grants:
    """Signs and checks claims. `keys`: id → key, the first one signs."""

    def __init__(self, keys: dict[str, bytes]) -> None:
        self._keys = keys

    def sign(self, claim: Claim) -> bytes:
        key_id, key = next(iter(self._keys.items()))
        return key_id.encode() + b":" + self._digest(key, claim)

    def honours(self, grant: bytes, claim: Claim) -> bool:
        key_id, _, digest = grant.partition(b":")
        key = self._keys.get(key_id.decode("ascii", "replace"))
        return key is not None and hmac.compare_digest(digest, self._digest(key, claim))

    @staticmethod
    def _digest(key: bytes, claim: Claim) -> bytes:
        return hmac.digest(key, claim.encode(), "sha256")

    @classmethod
    def load(cls, path: Path) -> Grants:
        """Read a key file: one `id:hex` per line, the newest first; raises ConfigError."""
        try:
            lines = path.read_text("ascii").split()
            keys = {key_id: bytes.fromhex(text) for key_id, _, text in (line.partition(":") for line in lines)}
        except (OSError, ValueError) as error:
            raise ConfigError([Problem(path, "", f"cannot be read as grant keys: {error}")]) from error
        if not keys or any(len(key) < MIN_KEY_BYTES for key in keys.values()):
            raise ConfigError([Problem(path, "", "holds no usable grant key; create one with `logfwd pki init`")])
        return cls(keys)
