"""Peers without a certificate that mean harm to a receiver: connections that say nothing, or stop in the middle."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from bench.chaos.attacker import Run, Target
from streams.addresses import split_address

HALF_OPEN = 1000
CONNECTS_PER_SECOND = 200


async def _hold(address: str, until: float, first: bytes) -> str:
    try:
        reader, writer = await asyncio.open_connection(*split_address(address))
    except OSError:
        return "closed"
    try:
        writer.write(first)
        async with asyncio.timeout(max(until - time.monotonic(), 0)):
            return "closed" if not await reader.read(4096) else "answered"
    except TimeoutError:
        return "open"
    except OSError:
        return "closed"
    finally:
        writer.transport.abort()


def half_open(first: bytes) -> Run:
    """1000 handshakes that do not go on, begun anew whenever one is closed."""

    async def run(target: Target) -> Counter[str]:
        found = Counter[str]()

        async def client() -> None:
            while not target.is_over:
                found[await _hold(target.address, target.until, first)] += 1
                await asyncio.sleep(0.1)

        await asyncio.gather(*(client() for _ in range(HALF_OPEN)))
        return found

    return run


async def connects(target: Target) -> Counter[str]:
    """200 connections a second."""
    tasks = []
    while not target.is_over:
        tasks.append(asyncio.ensure_future(_hold(target.address, target.until, b"")))
        await asyncio.sleep(1 / CONNECTS_PER_SECOND)
    return Counter(await asyncio.gather(*tasks))


async def admin_connections(target: Target) -> Counter[str]:
    """1000 connections to the admin address that ask for nothing."""
    return Counter(
        await asyncio.gather(*(_hold(target.admin, target.until, b"GET / HTTP/1.1\r\n") for _ in range(HALF_OPEN)))
    )
