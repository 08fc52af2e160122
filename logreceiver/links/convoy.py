"""Batches beyond the share of their identity reach the sink a few at a time, with a rest in between.

A sink that makes batches durable together would else always be at work for whoever sends most of them, and everybody
else would wait for two of its groups: for the one that is under way and for their own. Those who wait take turns by
identity. A batch that the sink keeps for long holds up no other.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Hashable

MOST_AT_ONCE = 32
MOST_REST_SECONDS = 0.005
"""The sink rests for as long as it has worked for them, and no longer than this."""
MOST_SECONDS = 0.05
"""After which the next ones go, whether those before them are answered or not."""


class _Group:
    """Batches that went to the sink at the same time."""

    def __init__(self, at: float) -> None:
        self.at, self.left = at, 0


class Convoy:
    """Lets batches pass in groups."""

    def __init__(self) -> None:
        self._waiting: dict[Hashable, deque[asyncio.Future[_Group]]] = {}
        """By identity, the next one first; nobody has an empty queue."""
        self._last: _Group | None = None
        """None while the next batch may pass at once."""
        self._timer: asyncio.TimerHandle | None = None
        """When the next ones pass."""

    @contextlib.asynccontextmanager
    async def passing(self, who: Hashable) -> AsyncIterator[None]:
        """Wait for a turn; inside, the batch is at the sink."""
        turn: asyncio.Future[_Group] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(who, deque()).append(turn)
        if self._last is None:
            self._open()
        try:
            await turn
            yield
        finally:
            if turn.done() and not turn.cancelled():
                self._answered(turn.result())

    def _open(self) -> None:
        """Let the next ones pass, in rotation."""
        loop = asyncio.get_running_loop()
        group, self._last = _Group(loop.time()), None
        while self._waiting and group.left < MOST_AT_ONCE:
            who = next(iter(self._waiting))
            queue = self._waiting.pop(who)
            turn = queue.popleft()
            if queue:
                self._waiting[who] = queue  # behind the others
            if not turn.done():  # it may just have been given up
                group.left += 1
                turn.set_result(group)
        if group.left:
            self._last, self._timer = group, loop.call_later(MOST_SECONDS, self._open)

    def _answered(self, group: _Group) -> None:
        group.left -= 1
        if group.left or group is not self._last:
            return
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_later(min(loop.time() - group.at, MOST_REST_SECONDS), self._open)
