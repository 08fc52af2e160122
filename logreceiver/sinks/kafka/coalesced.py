"""Calls for the same thing at the same time share one answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Coalesced(Generic[T]):
    """Callers share a call that has not begun; those that arrive while one is under way share the next.

    So an answer is never older than the question.
    """

    def __init__(self) -> None:
        self._begun: dict[Hashable, asyncio.Task[T]] = {}
        self._next: dict[Hashable, asyncio.Task[T]] = {}
        """Calls that wait for the one under way; new callers may still join."""

    async def __call__(self, key: Hashable, call: Callable[[], Awaitable[T]]) -> T:
        task = self._next.get(key)
        if task is None:
            task = self._next[key] = asyncio.create_task(self._run(key, call))
            task.add_done_callback(_retrieved)
        return await asyncio.shield(task)

    async def _run(self, key: Hashable, call: Callable[[], Awaitable[T]]) -> T:
        task = self._next[key]
        if (before := self._begun.get(key)) is not None:
            await asyncio.wait([before])
        self._begun[key] = task
        del self._next[key]
        try:
            return await call()
        finally:
            if self._begun.get(key) is task:
                del self._begun[key]

    async def close(self) -> None:
        tasks = [*self._begun.values(), *self._next.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _retrieved(task: asyncio.Task[Any]) -> None:
    """Mark the error as seen: if all callers were cancelled, asyncio would log it as never retrieved."""
    if not task.cancelled():
        task.exception()
