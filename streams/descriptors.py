"""File descriptors: waiting for them, on the event loop and without one, and how many a process may have."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import selectors
import socket
from collections.abc import Iterable


def raise_limit() -> int:
    """Raise this process's limit of open files as far as the system lets it: the usual 1024 are for select(2).

    Returns how many it may have open.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return limit()


def limit() -> int:
    """How many files this process may have open."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


async def readable(descriptor: int) -> None:
    """Return when a descriptor can be read without blocking. Its flags are left alone: other processes may share it."""
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)


def wait_readable(files: Iterable[int | socket.socket], seconds: float | None) -> list[int | socket.socket]:
    """Those that can be read without blocking, once there are any, or none after these seconds (None: no limit).

    select(2) would do, but it knows no descriptor above 1023.
    """
    with selectors.PollSelector() as selector:
        for each in files:
            selector.register(each, selectors.EVENT_READ, each)
        return [key.data for key, _ in selector.select(seconds)]
