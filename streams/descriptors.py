"""Waiting for file descriptors on the event loop."""

from __future__ import annotations

import asyncio


async def readable(descriptor: int) -> None:
    """Return when a descriptor can be read without blocking. Its flags are left alone: other processes may share it."""
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)
