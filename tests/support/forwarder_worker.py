"""A forwarder that runs until RECORDS records of its one stream are acknowledged. Arguments: PICKLED_CONFIG RECORDS."""

from __future__ import annotations

import asyncio
import pickle
import sys
from pathlib import Path

from logfwd.forwarder import Forwarder
from streams.telemetry import logs
from tests.support.installation import acknowledged, eventually


async def work(config: Path, records: int) -> None:
    async with Forwarder(pickle.loads(config.read_bytes())) as forwarder:
        await eventually(lambda: acknowledged(forwarder) == records)


if __name__ == "__main__":
    logs.configure(level="error")
    asyncio.run(work(Path(sys.argv[1]), int(sys.argv[2])))
