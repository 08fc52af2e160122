"""The memory that batches may take, of all links together: what is announced is admitted before it comes. No I/O.

A batch is admitted whole or not at all; until then its link is not read. So what peers announce and never finish costs
no more than the budget, which an identity may use up to a quarter of; links whose batches wait take a little of it,
too. Identities take turns, each with its batches in the order of announcement; whoever has nothing here comes first,
and a quarter is kept for them: however many batches of others never end, theirs come in. What is admitted, or came in
one piece with its announcement, is given back when the batch has its answer or the link ends.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from typing import NamedTuple

IDENTITY_PARTS = 4
"""An identity may use one of so many parts, but always one batch."""
KEPT_PARTS = 4
"""One of so many parts is for the first batch of an identity."""


class _Wait(NamedTuple):
    size: int
    turn: asyncio.Future[None]


class Budget:
    """Bytes of batches that have come, or have been admitted."""

    def __init__(self, most_bytes: int, *, waiting_bytes: int = 0) -> None:
        """`waiting_bytes`: what a link takes whose batch waits; at most half of the budget is taken so."""
        self._most, self._waiting_bytes = most_bytes, waiting_bytes
        self._used = 0
        self.total_bytes = 0
        """Of all batches so far."""
        self._by_identity: Counter[str] = Counter()
        self._waits: dict[str, deque[_Wait]] = {}
        """By identity, the next one in rotation first; none is empty."""

    def limit(self, most_bytes: int) -> None:
        """Use another bound for what is announced from now on, and for what waits."""
        self._most = most_bytes
        self._admit()

    @property
    def is_scarce(self) -> bool:
        """True while more than half of it is used: whoever is slow keeps others waiting."""
        return self._used > self._most // 2

    def allotment(self, identity: str) -> Allotment:
        """A new link's part of it, at first nothing."""
        return Allotment(self, identity)

    def add(self, identity: str, size: int) -> None:
        """Count what is here already."""
        self._used += size
        self.total_bytes += size
        self._by_identity[identity] += size

    def take_now(self, identity: str, size: int) -> bool:
        """Admit this much at once; False if it has to wait."""
        if self._waits and (self._has_some(identity) or not all(map(self._has_some, self._waits))):
            return False  # after those before it
        if not self._fits(identity, size):
            return False
        self.add(identity, size)
        return True

    async def take(self, identity: str, size: int) -> None:
        """Wait until this much may come."""
        wait = _Wait(size, asyncio.get_running_loop().create_future())
        self._waits.setdefault(identity, deque()).append(wait)
        self._admit()
        try:
            await wait.turn
        except asyncio.CancelledError:
            if wait.turn.done() and not wait.turn.cancelled():  # admitted in the same turn of the loop
                self.give(identity, size)
            else:
                self._leave(identity, wait)
            raise

    def give(self, identity: str, size: int) -> None:
        """Give back."""
        self._used -= size
        self._by_identity[identity] -= size
        if self._by_identity[identity] <= 0:
            del self._by_identity[identity]
        self._admit()

    @property
    def _taken(self) -> int:
        """With what the links take that wait."""
        waiting = sum(map(len, self._waits.values())) if self._waiting_bytes else 0
        return self._used + min(waiting * self._waiting_bytes, self._most // 2)

    def _has_some(self, identity: str) -> bool:
        return self._by_identity[identity] > 0

    def _fits(self, identity: str, size: int) -> bool:
        """For an identity that has something: within its share, and what is not kept for others."""
        if not self._has_some(identity):
            return self._used == 0 or self._taken + size <= self._most
        return self._fits_share(identity, size) and self._taken + size <= self._most - self._most // KEPT_PARTS

    def _fits_share(self, identity: str, size: int) -> bool:
        return self._by_identity[identity] + size <= self._most // IDENTITY_PARTS

    def _admit(self) -> None:
        """Admit in turns; who has used up its share holds up nobody."""
        while (identity := self._next()) is not None:
            waits = self._waits.pop(identity)
            wait = waits.popleft()
            if waits:
                self._waits[identity] = waits  # behind the others
            if not wait.turn.done():  # it may just have been given up
                self.add(identity, wait.size)
                wait.turn.set_result(None)

    def _next(self) -> str | None:
        """Whose next batch is admitted; None if there is no room for the one that comes first."""
        newcomer = next((each for each in self._waits if not self._has_some(each)), None)
        if newcomer is not None:
            return newcomer if self._fits(newcomer, self._waits[newcomer][0].size) else None
        within = (each for each in self._waits if self._fits_share(each, self._waits[each][0].size))
        found = next(within, None)
        return found if found is not None and self._fits(found, self._waits[found][0].size) else None

    def _leave(self, identity: str, wait: _Wait) -> None:
        """It waits no longer."""
        waits = self._waits.get(identity, deque())
        if wait in waits:
            waits.remove(wait)
            if not waits:
                del self._waits[identity]
            self._admit()


class Allotment:
    """What one link has of the budget."""

    def __init__(self, budget: Budget, identity: str) -> None:
        self.budget, self._identity = budget, identity
        self._held = 0

    def add(self, size: int) -> None:
        """Count what is here already."""
        self._held += size
        self.budget.add(self._identity, size)

    def take_now(self, size: int) -> bool:
        """True if this much may come."""
        if self.budget.take_now(self._identity, size):
            self._held += size
            return True
        return False

    async def take(self, size: int) -> None:
        """Wait until this much may come."""
        await self.budget.take(self._identity, size)
        self._held += size

    def give(self, size: int) -> None:
        """Give back what a batch had, now that it is answered."""
        self._held -= size
        self.budget.give(self._identity, size)

    def close(self) -> None:
        """Give everything back."""
        self.give(self._held)
