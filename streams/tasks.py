"""Tasks in the background that have to run for as long as the program does.

An unexpected error would end such a task in silence, and the program would only seem to run. Here it is said, counted
and shown, and the task begins again; or, where it cannot, the program ends.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from typing import Any

from streams.program import EX_SOFTWARE
from streams.signals import leave
from streams.telemetry import logs

AGAIN_SECONDS = 5.0
MENDED_SECONDS = 60.0
"""A task that has run for so long since it failed counts as mended."""

_failures = Counter[str]()
_troubles: dict[str, str] = {}

log = logs.get_logger("program")


def failures() -> Mapping[str, int]:
    """How often each task of this process has failed."""
    return _failures


def troubles() -> Mapping[str, str]:
    """Which tasks have failed of late, and why."""
    return dict(_troubles)


def forever(name: str, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
    """Run `work` until it ends by itself or is cancelled; begin again when it fails."""
    return asyncio.create_task(_keep(name, work), name=name)


@contextlib.asynccontextmanager
async def running(name: str, work: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """As `forever`, but not for longer than the block."""
    task = forever(name, work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def vital(name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Run what others wait for and what cannot begin again: if it fails, the program ends."""
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_end_with)
    return task


async def _keep(name: str, work: Callable[[], Awaitable[None]]) -> None:
    part = f"task {name}"
    while True:
        try:
            return await work()
        except Exception as error:  # the top of a task
            reason = f"{type(error).__name__}: {error}"
            log.exception("task failed", task=name, reason=reason, retry_in_seconds=AGAIN_SECONDS)
        _failures[name] += 1
        _troubles[part] = reason
        await asyncio.sleep(AGAIN_SECONDS)
        asyncio.get_running_loop().call_later(MENDED_SECONDS, _mended, part, name, _failures[name])


def _mended(part: str, name: str, failed: int) -> None:
    if _failures[name] == failed:
        _troubles.pop(part, None)


def _end_with(task: asyncio.Task[None]) -> None:
    if task.cancelled():
        return
    try:
        task.result()
    except Exception as error:  # the top of a task
        log.exception("task failed", task=task.get_name(), reason=f"{type(error).__name__}: {error}")
        leave(EX_SOFTWARE)
