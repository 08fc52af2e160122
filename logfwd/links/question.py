"""The answer that a link waits for: to HELLO and to OPEN_RUN; one at a time, within a time limit."""

from __future__ import annotations

import asyncio

from logfwd.clocks import clock
from streams.errors import LinkError
from streams.wire import messages as m

Answer = m.Welcome | m.Run | m.Nack


class Question:
    """One link's question under way."""

    def __init__(self) -> None:
        self.asked_at: float | None = None
        """When it was sent; None if there is none."""
        self._answers: asyncio.Queue[Answer | None] = asyncio.Queue()

    def take(self, answer: Answer) -> None:
        """What the receiver says."""
        self._answers.put_nowait(answer)

    def give_up(self) -> None:
        """Its answer is not waited for any longer: the receiver may be holding it."""
        if self.asked_at is not None:
            self._answers.put_nowait(None)

    async def answer(self, seconds: float) -> Answer | None:
        """What came within the time limit, or None if it was given up; LinkError if nothing came."""
        self.asked_at = clock()
        try:
            async with asyncio.timeout(seconds):
                return await self._answers.get()
        except TimeoutError:
            raise LinkError("the receiver did not answer in time") from None
        finally:
            self.asked_at = None
