"""Turns of the event loop: the clients of all listeners together get a share of each.

However many of them have sent something, links, health checks and other streams are served in between. Work is begun in
the order in which it was asked for, so no client holds up the others either.
"""

from __future__ import annotations

import asyncio
from collections import deque

SHARES = 4
"""In one turn of the loop. A share is up to about half a millisecond: one small request, a hundred short messages."""


class Turns:
    """Shares of the loop's turns, for work that clients cause."""

    def __init__(self) -> None:
        self._taken = 0
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()
        self._is_scheduled = False

    async def take(self, shares: int = 1) -> None:
        """Wait until a piece of work may begin: at once, unless this turn's shares are taken."""
        self._schedule()
        if self._taken < SHARES and not self._waiting:
            self._taken += shares
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, shares))
        await turn

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        """A new turn, after the work of the last one."""
        self._is_scheduled, self._taken = False, 0
        while self._waiting and self._taken < SHARES:
            turn, shares = self._waiting.popleft()
            if not turn.done():  # who waits may have been cancelled
                turn.set_result(None)
                self._taken += shares
        if self._taken:
            self._schedule()
