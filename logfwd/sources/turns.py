"""The time that clients of all listeners together get of the event loop, in short pieces.

Between two pieces the loop serves links, health checks and other streams; work is begun in the order in which it was
asked for, so no client holds up the others either. While a batch is sealed or committed the loop also rests for as long
as clients have kept it busy: threads that seal and commit get Python's lock from a loop that computes only after
SWITCH_SECONDS (program.py), and they ask for it dozens of times for each batch.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

SHARES = 4
"""In one turn of the loop. A share is up to about half a millisecond: one small request, a hundred short messages."""
WORK_SECONDS, REST_SECONDS = 0.001, 0.001
"""After so much of clients' work the loop rests; uvloop counts time in milliseconds."""


class Turns:
    """Shares of the loop's turns, for work that clients cause. `must_rest`: whether threads have something to do."""

    def __init__(self, must_rest: Callable[[], bool] = lambda: True) -> None:
        self.must_rest = must_rest
        self._taken = 0
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()
        self._is_scheduled = False
        self._began = self._ended = self._worked = 0.0

    async def take(self, shares: int = 1) -> None:
        """Wait until a piece of work may begin: at once, unless this turn's shares are taken."""
        if not self._is_scheduled:
            self._begin()
        if self._taken < SHARES and not self._waiting:
            self._taken += shares
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, shares))
        await turn

    def _begin(self) -> None:
        self._is_scheduled, self._began = True, time.perf_counter()
        if self._began - self._ended > REST_SECONDS:  # the clients gave it a rest themselves
            self._worked = 0.0
        asyncio.get_running_loop().call_soon(self._end)

    def _end(self) -> None:
        """After the work of a turn, and whatever else the loop did in it: the next turn, or a rest before it."""
        self._ended = time.perf_counter()
        self._worked += self._ended - self._began
        if self._worked < WORK_SECONDS:
            self._next()
            return
        self._worked = 0.0
        if not self.must_rest():
            self._next()
            return
        self._taken = SHARES
        asyncio.get_running_loop().call_later(REST_SECONDS, self._next)

    def _next(self) -> None:
        self._is_scheduled, self._taken = False, 0
        while self._waiting and self._taken < SHARES:
            turn, shares = self._waiting.popleft()
            if not turn.done():  # who waits may have been cancelled
                turn.set_result(None)
                self._taken += shares
        if self._taken:
            self._begin()
