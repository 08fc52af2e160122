"""A child process that appends to an embedded log until it is killed, and prints each acknowledged sequence.

    python -m tests.support.appender DIRECTORY TOPIC

It goes on where the log says the last life ended; a line on stdout is the last sequence that was acknowledged.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import structlog

from logreceiver.sinks import Kind
from logreceiver.sinks import settings as sink_settings
from logreceiver.sinks.log.sink import LogSink
from tests.support.batches import batch

PRODUCER_ID = 7
RECORDS = 10


async def _append(directory: Path, topic: str) -> None:
    sink = LogSink(sink_settings.LogSink(directory=directory, max_segment_bytes=20_000))
    await sink.start()
    await sink.topic(topic)
    state = await sink.ask(topic, 0, PRODUCER_ID)
    print("start", -1 if state is None else state.last_sequence, flush=True)
    sequence = 0 if state is None else state.last_sequence + 1
    while True:
        outcome = await sink.produce(topic, 0, batch(PRODUCER_ID, sequence, records=RECORDS))
        if outcome.kind is not Kind.STORED or outcome.base_offset != sequence:
            raise SystemExit(f"sequence {sequence}: {outcome}")
        sequence += RECORDS
        print(sequence - 1, flush=True)


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(_append(Path(sys.argv[1]), sys.argv[2]))
