"""A source of requests that exists only in tests: clients hand it bodies of JSON lines and wait for the outcome.

It is what a source behind a listener will look like, less the listener: admission, hand-over, receipts. A request may
bring an idempotency key: then every transaction that holds a part of it stores its progress, and a repeat goes on after
that. Without a key, a request whose outcome is unknown may be stored twice when it is sent again.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncGenerator, Mapping

from logfwd.sources.front import Handle, Outcome
from logfwd.sources.keys import Key, key_hash
from logfwd.sources.position import Block, Position, Progress

KEPT_SECONDS = 3600.0


class BadRequest(Exception):
    """A body does not end with a newline, or has the key of another one. Nothing of it is stored."""


class Push:
    """One stream's source of requests."""

    def __init__(self, handle: Handle, *, block_bytes: int = 1 << 20) -> None:
        self.handle = handle
        self._block_bytes = block_bytes
        self.troubles: dict[str, str] = {}

    # -- for clients -------------------------------------------------------------------------------------------

    async def send(self, body: bytes, key: bytes | None = None) -> Outcome:
        """Store a body; raises BadRequest and NotAdmitted, and then nothing of it is stored."""
        if body and not body.endswith(b"\n"):
            raise BadRequest("it does not end with a newline")
        if key is None:
            with self.handle.admit(len(body)) as admission:
                request = admission.hand_over(self._cut(body, 0))
            return await request.outcome()
        hashed = key_hash(self.handle.stream, "client", key)
        async with self.handle.keyed(hashed) as known:
            if known is not None and known.digest != digest(body[: known.progress]):
                raise BadRequest("its key was used for another body")
            if known is not None and known.finished:
                return Outcome.DONE
            start = 0 if known is None else known.progress
            with self.handle.admit(len(body) - start) as admission:
                request = admission.hand_over(self._cut(body, start, Parts(body, hashed, known)), hashed)
            return await request.outcome()

    def _cut(self, body: bytes, start: int, parts: Parts | None = None) -> list[Block]:
        blocks, now_ms = [], time.time_ns() // 1_000_000
        while start < len(body):
            end = body.rfind(b"\n", start, start + self._block_bytes) + 1 or body.index(b"\n", start) + 1
            progress = None if parts is None else parts.progress(end)
            blocks.append(Block(body[start:end], now_ms, progress=progress))
            start = end
        return blocks

    # -- for the pipeline ----------------------------------------------------------------------------------------

    def blocks(self, positions: Mapping[str, Position]) -> AsyncGenerator[Block, None]:
        return self.handle.blocks()

    def committed(self, positions: Mapping[str, Position]) -> None:
        """Receipts say it."""

    def forgotten(self) -> list[str]:
        return []

    def stop(self) -> list[Block]:
        return self.handle.stop()

    def health(self) -> Mapping[str, str]:
        return self.troubles

    def lag_bytes(self) -> int:
        return self.handle.lag_bytes


class Parts:
    """The progress of one request, part by part."""

    def __init__(self, body: bytes, hashed: bytes, known: Key | None) -> None:
        self._body, self._hashed = body, hashed
        self._accepted, self._invalid = (known.accepted, known.invalid) if known is not None else (0, 0)

    def progress(self, end: int) -> Progress:
        """For the part that ends at this offset."""

        def stored(records: int, invalid: int) -> tuple[bytes, Key]:
            self._accepted += records
            self._invalid += invalid
            total = end if end == len(self._body) else None
            expires = time.time() + KEPT_SECONDS
            key = Key(end, total, self._accepted, self._invalid, digest(self._body[:end]), expires)
            return self._hashed, key

        return stored


def digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=16).digest()
