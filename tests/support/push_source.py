"""A source of requests that exists only in tests: a client hands bodies of JSON lines to it, and waits for the outcome.

It is what a source behind a listener will look like, less the listener: admission, hand-over, receipts. A request may
bring an idempotency key: then its progress is stored with every part of it, and a repeat goes on after that.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping

from logfwd.sources.front import Handle, Outcome
from logfwd.sources.position import Block, Position


class NotALine(Exception):
    """A body does not end with a newline."""


class Push:
    """One stream's source of requests."""

    def __init__(self, handle: Handle, *, block_bytes: int = 1 << 20) -> None:
        self.handle = handle
        self._block_bytes = block_bytes
        self.troubles: dict[str, str] = {}

    # -- for clients -------------------------------------------------------------------------------------------

    async def send(self, body: bytes) -> Outcome:
        """Store a body; raises NotALine and NotAdmitted, and then nothing of it is stored."""
        with self.handle.admit(len(body)) as admission:
            if not body.endswith(b"\n"):
                raise NotALine
            request = admission.hand_over(self._cut(body))
        return await request.outcome()

    def _cut(self, body: bytes) -> list[Block]:
        blocks, start, now_ms = [], 0, time.time_ns() // 1_000_000
        while start < len(body):
            end = body.rfind(b"\n", start, start + self._block_bytes) + 1 or body.index(b"\n", start) + 1
            blocks.append(Block(body[start:end], now_ms))
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
