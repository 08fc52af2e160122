"""kill -9 of a replay into a real Kafka: begun again, each record is in Kafka once and in order."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.lab.kafka import Kafka
from logreceiver.sinks import Kind
from logreceiver.sinks.log.sink import LogSink
from logreceiver.sinks.settings import LogSink as Settings
from tests.support.batches import batch, values
from tests.support.patience import PATIENCE_SECONDS

pytestmark = pytest.mark.kafka
BATCHES, RECORDS = 700, 20
PROGRAM = str(Path(sys.executable).with_name("logreceiver"))


async def fill(directory: Path, topic: str) -> None:
    sink = LogSink(Settings(directory=directory))
    await sink.start()
    await sink.topic(topic)
    made = [batch(7, RECORDS * number, records=RECORDS) for number in range(BATCHES)]
    for start in range(0, BATCHES, 100):  # in groups, each of which is one fsync
        outcomes = await asyncio.gather(*(sink.produce(topic, 0, each) for each in made[start : start + 100]))
        assert {outcome.kind for outcome in outcomes} == {Kind.STORED}
    await sink.close()


def stored(kafka: Kafka, topic: str) -> list[bytes]:
    return list(kafka.consume(topic))


def test_killed_in_the_middle_and_begun_again_each_record_is_there_once(
    kafka: Kafka, tmp_path: Path, topic_name: str
) -> None:
    asyncio.run(fill(tmp_path, topic_name))
    command = [PROGRAM, "replay", topic_name, "--to", f"kafka://{kafka.bootstrap}", "-d", str(tmp_path)]
    kills, delay = 0, 1.0
    for _ in range(6):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.communicate()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
        delay += 0.4
    assert kills, "a machine as fast as this needs more batches"
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=4 * PATIENCE_SECONDS)
    assert done.returncode == 0, done.stderr
    assert stored(kafka, topic_name) == values(BATCHES * RECORDS)
    before = time.monotonic()
    more = subprocess.run(command, capture_output=True, text=True, check=True, timeout=4 * PATIENCE_SECONDS)
    assert more.stdout.startswith("0 records in 0 batches"), time.monotonic() - before
    assert stored(kafka, topic_name) == values(BATCHES * RECORDS)
