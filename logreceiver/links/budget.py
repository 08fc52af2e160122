"""The memory that batches may take, of all links together: what is announced is admitted before it comes. No I/O.

A batch is admitted whole or not at all, in the order of announcement; until then its link is not read. So what peers
announce and never finish costs no more than the budget, which an identity may use up to a quarter of: the others go on.
What is admitted, or came in one piece with its announcement, is given back when the batch has its answer or the link
ends.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from dataclasses import dataclass

IDENTITY_PARTS = 4
"""An identity may use one of so many parts, but always one batch."""


@dataclass(eq=False)
class _Wait:
    identity: str
    size: int
    turn: asyncio.Future[None]


class Budget:
    """Bytes of batches that have come, or have been admitted."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._used = 0
        self._by_identity: Counter[str] = Counter()
        self._waits: deque[_Wait] = deque()

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
        self._by_identity[identity] += size

    def take_now(self, identity: str, size: int) -> bool:
        """Admit this much at once; False if it has to wait."""
        if self._waits or not self._fits(identity, size):
            return False
        self.add(identity, size)
        return True

    async def take(self, identity: str, size: int) -> None:
        """Wait until this much may come."""
        wait = _Wait(identity, size, asyncio.get_running_loop().create_future())
        self._waits.append(wait)
        self._admit()
        try:
            await wait.turn
        except asyncio.CancelledError:
            if wait.turn.done() and not wait.turn.cancelled():  # admitted in the same turn of the loop
                self.give(identity, size)
            raise

    def give(self, identity: str, size: int) -> None:
        """Give back."""
        self._used -= size
        self._by_identity[identity] -= size
        if self._by_identity[identity] <= 0:
            del self._by_identity[identity]
        self._admit()

    def _fits(self, identity: str, size: int) -> bool:
        return self._fits_share(identity, size) and (self._used == 0 or self._used + size <= self._most)

    def _fits_share(self, identity: str, size: int) -> bool:
        own = self._by_identity[identity]
        return own == 0 or own + size <= self._most // IDENTITY_PARTS

    def _admit(self) -> None:
        """Admit in order; who has used up its share does not hold up those behind it."""
        full: set[str] = set()
        for wait in list(self._waits):
            if wait.turn.done():
                self._waits.remove(wait)
            elif wait.identity in full or not self._fits_share(wait.identity, wait.size):
                full.add(wait.identity)
            elif self._fits(wait.identity, wait.size):
                self._waits.remove(wait)
                self.add(wait.identity, wait.size)
                wait.turn.set_result(None)
            else:
                return


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
