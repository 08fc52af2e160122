"""Turns of the event loop: what peers cause beyond their share is done a piece at a time, in turns between them.

Between two pieces the loop serves everything else: other links, health checks, timers. However many peers ask for
however much, whoever asks for little waits for one piece of somebody else's work at a time; and the pieces, with what
follows from them at once, leave the loop, and the machine, as much time as they have taken.

What has begun goes on before anything else begins: of a thousand handshakes at once, each takes as long as its own work
takes from its first turn on, and none runs out of time because all others had their first turn before its second.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable

LONG_SECONDS = 0.0005
"""Of work that is done before the loop rests: timers are no finer than a millisecond."""

_Queues = dict[Hashable, deque[Callable[[], None]]]
"""By who asked, the next one first; nobody has an empty queue."""


class Turns:
    """One piece of work in each turn of the loop; those who wait are served in rotation."""

    def __init__(self, *, rests: bool = True) -> None:
        """Without `rests` one piece follows the other, each in a turn of its own: for work that should end soon."""
        self._rests = rests
        self._begun: _Queues = {}
        self._waiting: _Queues = {}
        self._is_taken = False
        self._begun_at = self._owed_seconds = 0.0
        """Both are of the CPU's time: what other processes take from this one is nobody's fault here."""

    def ask(self, who: Hashable, work: Callable[[], None], *, goes_on: bool = False) -> None:
        """Do a piece of work: now, if it is the first of this turn and nobody waits, else later.

        `goes_on`: it ends soon, and others wait for their beginning.
        """
        if self._is_taken:
            (self._begun if goes_on else self._waiting).setdefault(who, deque()).append(work)
        else:
            self._begin(work)

    async def take(self, who: Hashable) -> None:
        """Wait until a piece of work may begin."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ask(who, lambda: None if turn.done() else turn.set_result(None))
        await turn

    def _begin(self, work: Callable[[], None]) -> None:
        self._is_taken, self._begun_at = True, time.thread_time()
        try:
            work()
        finally:  # behind whoever it has woken, so that what they do counts
            asyncio.get_running_loop().call_soon(self._end)

    def _end(self) -> None:
        """The loop has looked at everything else once, and whoever was given a turn has used it."""
        self._owed_seconds += time.thread_time() - self._begun_at
        if self._owed_seconds < LONG_SECONDS or not self._rests:
            self._next()
            return
        pause, self._owed_seconds = self._owed_seconds, 0.0
        asyncio.get_running_loop().call_later(pause, self._next)

    def _next(self) -> None:
        queues = self._begun or self._waiting
        if not queues:
            self._is_taken = False
            return
        who = next(iter(queues))
        queue = queues.pop(who)
        work = queue.popleft()
        if queue:
            queues[who] = queue  # behind the others
        self._begin(work)
