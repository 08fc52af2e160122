"""The threads on which all streams of a forwarder seal. Few portions at once: blocks are most of what it keeps."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from logfwd.sources.permits import Permits

_Result = TypeVar("_Result")

MOST_AT_ONCE = 4
"""Portions that are being sealed or have their turn next. Half of the work holds the interpreter's lock, so more would
not be sealed faster."""


class SealThreads:
    """`await start(function, …)` once it has its turn; streams take turns in the order in which they ask."""

    def __init__(self) -> None:
        threads = max(min(os.cpu_count() or 2, MOST_AT_ONCE - 1), 2)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="seal")
        self._turns = asyncio.Semaphore(threads + 1)
        self.permits = Permits(threads)
        """For sources, to read the blocks that are sealed next."""
        self.streams = 0
        """How many use them."""

    @contextlib.contextmanager
    def for_a_stream(self) -> Iterator[None]:
        """While one uses them."""
        self.streams += 1
        try:
            yield
        finally:
            self.streams -= 1

    async def start(self, function: Callable[..., _Result], *arguments: Any, **named: Any) -> Future[_Result]:
        """Have a thread call the function. It may wait for what was started before it."""
        await self._turns.acquire()
        work = self._threads.submit(function, *arguments, **named)
        asyncio.wrap_future(work).add_done_callback(self._ended)
        return work

    def _ended(self, done: asyncio.Future[Any]) -> None:
        self._turns.release()
        if not done.cancelled():
            done.exception()  # whoever started it looks at it: asyncio need not report it

    def close(self) -> None:
        """Begin nothing more."""
        self._threads.shutdown(wait=False)
