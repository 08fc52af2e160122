"""An embedded log that deletes old segments, at every point at which kill -9 or a power loss can leave another disk.

A producer whose segments are gone sends its last batches again, as if it had heard no answer: they are recognised.
"""

from __future__ import annotations

import json
import random
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from logreceiver.sinks import Kind
from logreceiver.sinks.log import snapshot
from logreceiver.sinks.log.sink import LogSink, read_records
from tests.support import syscalls
from tests.support.crash_points import Point, check_each, record
from tests.support.retention_worker import RECORDS, STEPS, TOPIC, batch_of, open_log


@pytest.fixture(autouse=True)
def can_trace() -> None:
    if reason := syscalls.reason_not_to():
        pytest.skip(reason)


async def finish(sink: LogSink, producer: int, said: int, handed: int) -> None:
    """What a forwarder does: ask, send the last stored batches again, then the rest."""
    state = await sink.ask(TOPIC, 0, producer)
    done = 0 if state is None else state.last_sequence + 1
    assert said <= done <= handed, (producer, state)
    for step in range(max(done // RECORDS - 5, 0), STEPS[producer]):
        outcome = await sink.produce(TOPIC, 0, batch_of(producer, step))
        assert outcome.kind is (Kind.DUPLICATE if step * RECORDS < done else Kind.STORED), (producer, step, outcome)


async def check(point: Point, directory: Path) -> None:
    sink = open_log(directory, retain_bytes=None)
    await sink.start()
    await sink.topic(TOPIC)
    for producer in STEPS:
        await finish(sink, producer, point.said[f"stored-{producer}"], point.said[f"handed-{producer}"])
    await sink.close()
    begin = snapshot.read(directory / f"{TOPIC}-0").offset
    found = defaultdict(list)
    for offset, value in enumerate(read_records(directory, TOPIC), begin):
        one = json.loads(value.value or b"")
        assert value.offset == offset
        found[one["p"]].append(one["n"])
    assert sum(map(len, found.values())) == RECORDS * sum(STEPS.values()) - begin, "no more and no fewer offsets"
    for producer, numbers in found.items():
        last = STEPS[producer] * RECORDS
        assert numbers == list(range(last - len(numbers), last))


@pytest.mark.slow
def test_at_every_point_of_a_deletion_what_was_stored_before_is_not_stored_again(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    points = record([sys.executable, "-m", "tests.support.retention_worker", str(tmp_path)], tmp_path, seed)
    deleted = {name for point in points for name in point.killed if name.endswith(".log")} - set(points[-1].killed)
    assert len(deleted) > 4
    assert any(name.endswith(snapshot.SNAPSHOT) for name in points[-1].killed)

    check_each(points, seed, check)
    print(f"{len(points)} points, kill -9 and power loss at each: nothing lost, nothing twice")
