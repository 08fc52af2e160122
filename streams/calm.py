"""When a program gives the memory back that a time of much work has left free: in the first calm second after it.

Not while it lasts, and not after each of many bursts: to fault memory in again takes a millisecond for each MB.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from math import inf

from streams.config.units import MIB
from streams.program import trim_heap

LOOK_SECONDS = 1.0
BUSY_BYTES = MIB // 2
"""Between two looks."""
AGAIN_SECONDS = 10.0


class Calm:
    """Looked at every LOOK_SECONDS."""

    def __init__(self) -> None:
        self._seen_bytes, self._was_busy, self._last_at = 0, False, -inf

    def has_come(self, worked_bytes: int, now: float) -> bool:
        """True if memory is to be given back now. `worked_bytes`: what all work so far took."""
        is_busy = worked_bytes - self._seen_bytes >= BUSY_BYTES
        self._seen_bytes, self._was_busy = worked_bytes, self._was_busy or is_busy
        if is_busy or not self._was_busy or now < self._last_at + AGAIN_SECONDS:
            return False
        self._was_busy, self._last_at = False, now
        return True


async def give_back(worked_bytes: Callable[[], int]) -> None:
    """Give memory back whenever it is time."""
    calm = Calm()
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        if calm.has_come(worked_bytes(), time.monotonic()):
            await asyncio.to_thread(trim_heap)
