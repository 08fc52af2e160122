"""Waiting for a sink that cannot be written, so that whoever waits hears of its return at once.

Each waiting link looks by itself; the more there are, the more seldom each, so that thousands of them neither take up
the receiver nor return all at the same moment.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from streams.errors import Code, SinkUnavailable

T = TypeVar("T")

LOOK_SECONDS = 0.2
MOST_LOOKS_PER_SECOND = 500.0
MOST_SECONDS = 30.0
"""How long an answer is held, whatever the forwarder allows."""


class Patience:
    """Shared by all links of a receiver."""

    def __init__(self) -> None:
        self._waiting = 0

    async def until(self, look: Callable[[], Awaitable[T]], seconds: float) -> T:
        """What `look` returns once the sink is available, or SinkUnavailable after at most `seconds`.

        What only an operator can mend, such as a right, is not waited for.
        """
        until = time.monotonic() + min(seconds, MOST_SECONDS)
        self._waiting += 1
        try:
            while True:
                try:
                    return await look()
                except SinkUnavailable as error:
                    pause = max(LOOK_SECONDS, self._waiting / MOST_LOOKS_PER_SECOND)
                    if error.code is not Code.UNAVAILABLE or time.monotonic() + pause > until:
                        raise
                await asyncio.sleep(pause)
        finally:
            self._waiting -= 1
