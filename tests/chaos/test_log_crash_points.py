"""The embedded log at every point at which kill -9 or a power loss can leave another disk: no answer was a lie."""

from __future__ import annotations

import json
import random
import sys
import uuid
from pathlib import Path

import pytest

from logreceiver.sinks import Kind
from logreceiver.sinks.log.sink import LogSink, read_records
from tests.support import syscalls
from tests.support.crash_points import Point, check_each, record
from tests.support.log_worker import NEW_EPOCH_AT, PRODUCERS, RECORDS, STEPS, TOPIC, batch_of, open_log


@pytest.fixture(autouse=True)
def can_trace() -> None:
    if reason := syscalls.reason_not_to():
        pytest.skip(reason)


def stored(directory: Path) -> list[list[int]]:
    """The numbers of each producer's records, in the order of the log; offsets have no gap."""
    found: list[list[int]] = [[] for _ in range(PRODUCERS)]
    for offset, one in enumerate(read_records(directory, TOPIC)):
        value = json.loads(one.value or b"")
        assert one.offset == offset
        found[value["p"]].append(value["n"])
    return found


async def finish(sink: LogSink, producer: int, numbers: list[int]) -> None:
    """What a forwarder does: ask, send the last stored batch again, then the rest."""
    step = len(numbers) // RECORDS
    state = await sink.ask(TOPIC, 0, producer)
    if not step:
        assert state is None
    else:
        since = NEW_EPOCH_AT if producer == PRODUCERS - 1 and step > NEW_EPOCH_AT else 0
        assert state is not None
        assert (state.producer_epoch, state.last_sequence) == (int(since > 0), (step - since) * RECORDS - 1)
        again = await sink.produce(TOPIC, 0, batch_of(producer, producer, step - 1))
        assert again.kind is Kind.DUPLICATE, again
    for rest in range(step, STEPS):
        outcome = await sink.produce(TOPIC, 0, batch_of(producer, producer, rest))
        assert outcome.kind is Kind.STORED, outcome


async def check(point: Point, directory: Path) -> None:
    """The promises, on one disk; then work goes on there."""
    sink = open_log(directory)
    await sink.start()
    said = point.said
    assert said["cluster"] in (0, uuid.UUID(sink.cluster_id).int)
    assert said["topic"] in (0, uuid.UUID((await sink.topic(TOPIC)).topic_id).int)
    found = stored(directory)
    for producer, numbers in enumerate(found):
        assert numbers == list(range(len(numbers)))
        assert said[f"stored-{producer}"] <= len(numbers) <= said[f"handed-{producer}"]
    fresh = await sink.new_producer_id()
    assert fresh > said["granted"] or not said["granted"]
    for producer, numbers in enumerate(found):
        await finish(sink, producer, numbers)
    await sink.close()
    assert stored(directory) == [list(range(STEPS * RECORDS))] * PRODUCERS
    assert not list(directory.rglob("*.damaged"))


@pytest.mark.slow
def test_at_every_point_of_its_life_a_log_survives_kill_9_and_power_loss(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    points = record([sys.executable, "-m", "tests.support.log_worker", str(tmp_path)], tmp_path, seed)
    assert len(points) > 80
    assert len([name for name in points[-1].killed if name.endswith(".log")]) > 2

    check_each(points, seed, check)
    print(f"{len(points)} points, kill -9 and power loss at each: all recovered")
