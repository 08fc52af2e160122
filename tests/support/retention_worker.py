"""A process that uses an embedded log which deletes old segments, and says what may be on disk and what is.

The quiet producer, 0, stores its first batches at the beginning and the others at the end: in between every segment
that has them is deleted. `handed-P N` and `stored-P N` as in log_worker.py. Argument: DIRECTORY.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from logreceiver.sinks import Kind
from logreceiver.sinks import settings as sink_settings
from logreceiver.sinks.log.sink import LogSink
from streams.records.batch import Codec
from streams.telemetry import logs
from tests.support.batches import batch

TOPIC = "http"
RECORDS = 5
STEPS = {0: 7, 1: 12}
"""Batches of each producer."""
FIRST_OF_QUIET = 6


def open_log(directory: Path, *, retain_bytes: int | None) -> LogSink:
    settings = sink_settings.LogSink(directory=directory, max_segment_bytes=600, retain_bytes=retain_bytes)
    return LogSink(settings)


def batch_of(producer: int, step: int) -> memoryview:
    records = [b'{"p":%d,"n":%d}' % (producer, step * RECORDS + part) for part in range(RECORDS)]
    return batch(producer, step * RECORDS, records=records, codec=Codec.NONE)


def say(word: str, number: int) -> None:
    os.write(1, f"{word} {number}\n".encode())


async def work(directory: Path) -> None:
    sink = open_log(directory, retain_bytes=1000)
    await sink.start()
    await sink.topic(TOPIC)
    quiet = [(0, step) for step in range(STEPS[0])]
    busy = [(1, step) for step in range(STEPS[1])]
    for producer, step in (*quiet[:FIRST_OF_QUIET], *busy, *quiet[FIRST_OF_QUIET:]):
        say(f"handed-{producer}", (step + 1) * RECORDS)
        outcome = await sink.produce(TOPIC, 0, batch_of(producer, step))
        assert outcome.kind is Kind.STORED, outcome
        say(f"stored-{producer}", (step + 1) * RECORDS)
    await sink.close()


if __name__ == "__main__":
    logs.configure(level="error")
    asyncio.run(work(Path(sys.argv[1])))
