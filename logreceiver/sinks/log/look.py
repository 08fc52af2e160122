"""A look at a batch before it is stored: can everybody who reads the log pass it?

At a large batch it takes milliseconds where a commit takes less than one. So these looks have threads of their own, and
hold up no other stream's commit. A small one is looked at by the thread that commits: the way to another takes longer.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import msgspec

from streams.config.units import KIB
from streams.errors import BatchCorrupt
from streams.records.batch import Header, check
from streams.records.walk import walk

SMALL_BYTES = 32 * KIB
THREADS = 2
"""Each keeps room for the largest batch that it has decompressed."""


class Look(msgspec.Struct, frozen=True):
    """What was seen."""

    header: Header
    unfit: str = ""
    """Why a reader could not pass the batch, or Kafka's tools could not; empty if it may be stored."""


class Lookers:
    """The threads."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, "log-look")

    async def look(self, batch: memoryview) -> Look:
        """BatchCorrupt if its header or its CRC is wrong."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, look_at, batch)

    def close(self) -> None:
        """After the last look."""
        self._threads.shutdown()


def look_at(batch: memoryview) -> Look:
    """BatchCorrupt if its header or its CRC is wrong."""
    header = check(batch)
    if header.producer_id >= 0 and (header.base_sequence < 0 or header.producer_epoch < 0):
        text = f"producer {header.producer_id} with epoch {header.producer_epoch}, sequence {header.base_sequence}"
        return Look(header, text)
    try:
        walk(batch, header)
    except BatchCorrupt as error:
        return Look(header, str(error))
    return Look(header)
