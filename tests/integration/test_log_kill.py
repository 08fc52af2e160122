"""The embedded log under kill -9: what was acknowledged is there, once and in order, whenever the process dies."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest

from logreceiver.sinks.log.sink import read_records

pytestmark = pytest.mark.slow
KILLS = 10
PRODUCERS = 4
RECORDS = 3

CHILD = """
import asyncio, sys
from pathlib import Path
from logreceiver.sinks import settings as sink_settings
from logreceiver.sinks import Kind
from logreceiver.sinks.log.sink import LogSink
from streams.records.batch import Codec, build, stamp
from streams.telemetry import logs

async def append(sink, producer_id, records):
    state = await sink.ask("t", 0, producer_id)
    sequence = 0 if state is None else state.last_sequence + 1
    while True:
        values = [b'{"p":%d,"n":%d}' % (producer_id, sequence + n) for n in range(records)]
        made = stamp(build(values, timestamp_ms=0, codec=Codec.NONE),
                     producer_id=producer_id, producer_epoch=0, base_sequence=sequence)
        outcome = await sink.produce("t", 0, memoryview(made))
        assert outcome.kind is Kind.STORED, outcome
        sequence += records
        print(producer_id, sequence, flush=True)

async def main():
    logs.configure(level="error")
    sink = LogSink(sink_settings.LogSink(directory=Path(sys.argv[1]), max_segment_bytes=20_000))
    await sink.start()
    await sink.topic("t")
    print("up", flush=True)
    async with asyncio.TaskGroup() as group:
        for producer_id in range(int(sys.argv[2])):
            group.create_task(append(sink, producer_id, int(sys.argv[3])))

asyncio.run(main())
"""


def run_and_kill(directory: Path, seconds: float) -> dict[int, int]:
    """Let a process append for a while, kill it; returns the sequence that each producer was acknowledged up to."""
    argv = [sys.executable, "-c", CHILD, str(directory), str(PRODUCERS), str(RECORDS)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
        time.sleep(seconds)
        child.kill()
        said = child.stdout.read()
    acknowledged: dict[int, int] = {}
    for line in said[: said.rfind(b"\n") + 1].splitlines():
        producer_id, sequence = map(int, line.split())
        acknowledged[producer_id] = sequence
    return acknowledged


def test_kill_9_while_appending_loses_nothing_acknowledged_and_repeats_nothing(tmp_path: Path) -> None:
    acknowledged: dict[int, int] = {}
    for _ in range(KILLS):
        acknowledged |= run_and_kill(tmp_path, random.uniform(0.0, 0.15))
        stored: dict[bytes, list[int]] = defaultdict(list)
        for number, record in enumerate(read_records(tmp_path, "t")):
            assert record.offset == number
            assert record.value is not None
            producer, _, sequence = record.value[5:-1].partition(b',"n":')
            stored[producer].append(int(sequence))
        for producer_id in range(PRODUCERS):
            found = stored[b"%d" % producer_id]
            assert found == list(range(len(found)))
            assert len(found) >= acknowledged.get(producer_id, 0)
    assert len(acknowledged) == PRODUCERS
