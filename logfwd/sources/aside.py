"""Work that clients cause and that is too long for the event loop: done in steps, by one thread for all of them.

Python runs one thread at a time, and a thread that computes gives way only after SWITCH_SECONDS (program.py), or at the
end of a call into C that takes longer. The loop, and threads that seal and commit, ask for their turn dozens of times
for each batch. So the steps are short, and after a few of them the thread pauses: whoever waits goes on at once. While
a batch is sealed or committed it pauses for as long as it has worked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

T = TypeVar("T")

Work = Generator[None, None, T]
"""A computation that yields after each step, of half a millisecond at most, and returns its result."""

WORK_SECONDS, PAUSE_SECONDS = 0.0005, 0.0001


def at_once(work: Work[T]) -> T:
    """All steps, without a pause: for what is short."""
    try:
        while True:
            next(work)
    except StopIteration as end:
        result: T = end.value
        return result


class Aside:
    """The thread. `is_busy`: whether any stream has a batch under way."""

    def __init__(self, is_busy: Callable[[], bool] = lambda: True) -> None:
        self._is_busy = is_busy
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="aside")

    async def run(self, work: Work[T]) -> T:
        """All steps, with pauses; raises what they raise."""
        return await self.call(partial(_with_pauses, work, self._is_busy))

    async def call(self, function: Callable[[], T]) -> T:
        """One step that lets other threads run, as decompression does."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)


def _with_pauses(work: Work[T], is_busy: Callable[[], bool]) -> T:
    try:
        while True:
            until = time.perf_counter() + WORK_SECONDS
            while time.perf_counter() < until:
                next(work)
            time.sleep(WORK_SECONDS if is_busy() else PAUSE_SECONDS)
    except StopIteration as end:
        result: T = end.value
        return result
