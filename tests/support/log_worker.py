"""A process that uses the embedded log in every way and says on stdout what may be on disk and what is.

`handed-P N`: records of producer P below N may be on disk from now on. `stored-P N`: they are. `granted P`: producer
ids up to P were handed out. `cluster` and `topic`: the ids that were reported. Argument: DIRECTORY.
"""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from pathlib import Path

from logreceiver.sinks import Kind
from logreceiver.sinks import settings as sink_settings
from logreceiver.sinks.log.sink import LogSink
from streams.records.batch import Codec
from streams.telemetry import logs
from tests.support.batches import batch

TOPIC = "http"
RECORDS = 5
STEPS = 24
PRODUCERS = 3
NEW_EPOCH_AT = 12
"""From this step on the last producer has another epoch, and sequences from 0: what a reset does."""


def open_log(directory: Path) -> LogSink:
    """Segments so small that several are ended."""
    return LogSink(sink_settings.LogSink(directory=directory, max_segment_bytes=3000))


def records_of(producer: int, step: int) -> list[bytes]:
    """What producer number `producer` sends in a step."""
    return [b'{"p":%d,"n":%d}' % (producer, step * RECORDS + part) for part in range(RECORDS)]


def batch_of(producer_id: int, producer: int, step: int) -> memoryview:
    epoch = int(producer == PRODUCERS - 1 and step >= NEW_EPOCH_AT)
    sequence = (step - epoch * NEW_EPOCH_AT) * RECORDS
    return batch(producer_id, sequence, records=records_of(producer, step), producer_epoch=epoch, codec=Codec.NONE)


def say(word: str, number: int) -> None:
    os.write(1, f"{word} {number}\n".encode())


async def append(sink: LogSink, producer_id: int, producer: int, step: int) -> None:
    say(f"handed-{producer}", (step + 1) * RECORDS)
    outcome = await sink.produce(TOPIC, 0, batch_of(producer_id, producer, step))
    assert outcome.kind is Kind.STORED, outcome
    say(f"stored-{producer}", (step + 1) * RECORDS)


async def work(directory: Path) -> None:
    sink = open_log(directory)
    await sink.start()
    say("cluster", uuid.UUID(sink.cluster_id).int)
    say("topic", uuid.UUID((await sink.topic(TOPIC)).topic_id).int)
    ids = []
    for _ in range(PRODUCERS):
        ids.append(await sink.new_producer_id())
        say("granted", ids[-1])
    for step in range(STEPS):  # at the same time, so that they share commits
        await asyncio.gather(*(append(sink, ids[producer], producer, step) for producer in range(PRODUCERS)))
    await sink.close()


if __name__ == "__main__":
    logs.configure(level="error")
    asyncio.run(work(Path(sys.argv[1])))
