"""Permits to read files. Without them most of the memory of many busy streams would be blocks that wait to be sealed.

Sealing takes several times as long as reading, so a few streams that read ahead keep all threads busy, however many
streams there are. The others read when it is their turn, in the order in which they asked.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

LONGEST_SECONDS = 0.1
"""A permit is given back after this: what takes longer waits for a disk, and others need not wait for that."""


class Permits:
    """Of all streams of a forwarder."""

    def __init__(self, at_once: int) -> None:
        self._free = asyncio.Semaphore(at_once)

    @property
    def are_used_up(self) -> bool:
        """True while streams wait for a permit, or would have to."""
        return self._free.locked()

    def for_a_stream(self) -> Permit:
        """Its permit, not taken yet."""
        return Permit(self._free)


class Permit:
    """One stream's. Its source takes it before it reads, and gives it back when the pipeline asks for what follows."""

    def __init__(self, free: asyncio.Semaphore) -> None:
        self._free = free
        self._expiry: asyncio.TimerHandle | None = None  # while it is taken
        self._may_take = asyncio.Event()
        self._may_take.set()

    async def take(self) -> None:
        """Wait for a permit, unless the stream has it."""
        await self._may_take.wait()
        if self._expiry is None:
            await self._free.acquire()
            self._expiry = asyncio.get_running_loop().call_later(LONGEST_SECONDS, self.give_back)

    def give_back(self) -> None:
        """Let another stream read; without effect if this one has no permit."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
            self._free.release()

    @contextlib.contextmanager
    def not_needed(self) -> Iterator[None]:
        """While the stream can use nothing more, for its spool is full or slow, it has no permit and gets none."""
        self._may_take.clear()
        self.give_back()
        try:
            yield
        finally:
            self._may_take.set()
