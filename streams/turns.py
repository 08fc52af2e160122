"""Turns of the event loop: what peers cause beyond their share is done a piece at a time, in turns between them.

Between two pieces the loop serves everything else: other links, health checks, timers. However many peers ask for
however much, whoever asks for little waits for one piece of somebody else's work at a time; and long pieces, such as
steps of handshakes, leave the loop as much time as they have taken.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable

LONG_SECONDS = 0.0005


class Turns:
    """One piece of work in each turn of the loop; those who wait are served in rotation."""

    def __init__(self) -> None:
        self._waiting: dict[Hashable, deque[Callable[[], None]]] = {}
        """By who asked, the next one first; nobody has an empty queue."""
        self._taken = False
        self._is_scheduled = False

    def ask(self, who: Hashable, work: Callable[[], None]) -> None:
        """Do a piece of work: now, if it is the first of this turn and nobody waits, else later."""
        self._schedule()
        if self._taken or self._waiting:
            self._waiting.setdefault(who, deque()).append(work)
        else:
            self._taken = True
            work()

    async def take(self, who: Hashable) -> None:
        """Wait until a piece of work may begin."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ask(who, lambda: None if turn.done() else turn.set_result(None))
        await turn

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        """A new turn, after the loop has looked at everything else."""
        self._is_scheduled = self._taken = False
        if not self._waiting:
            return
        who = next(iter(self._waiting))
        queue = self._waiting.pop(who)
        work = queue.popleft()
        if queue:
            self._waiting[who] = queue  # behind the others
        self._taken = self._is_scheduled = True
        loop, started = asyncio.get_running_loop(), time.perf_counter()
        try:
            work()
        finally:
            taken = time.perf_counter() - started
            if taken < LONG_SECONDS:
                loop.call_soon(self._next)
            else:
                loop.call_later(taken, self._next)
