"""kill -9 of a replay into a real Kafka: begun again, each record is in Kafka once and in order."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition

from bench.lab.kafka import Kafka
from bench.lab.processes import wait_until
from logreceiver.sinks import Kind
from logreceiver.sinks.log.sink import LogSink
from logreceiver.sinks.settings import LogSink as Settings
from tests.support.batches import batch, values
from tests.support.patience import PATIENCE_SECONDS

pytestmark = pytest.mark.kafka
BATCHES, RECORDS = 2000, 20
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


def arrived(kafka: Kafka, topic: str) -> int:
    """How many records the topic has; 0 before it is there."""
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "unused"})
    try:
        return int(consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=PATIENCE_SECONDS)[1])
    except KafkaException:
        return 0
    finally:
        consumer.close()


def test_killed_in_the_middle_and_begun_again_each_record_is_there_once(
    kafka: Kafka, tmp_path: Path, topic_name: str
) -> None:
    asyncio.run(fill(tmp_path, topic_name))
    command = [PROGRAM, "replay", topic_name, "--to", f"kafka://{kafka.bootstrap}", "-d", str(tmp_path)]
    for _ in range(3):
        begun = arrived(kafka, topic_name)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        more = begun + 10 * RECORDS
        assert wait_until(lambda more=more: arrived(kafka, topic_name) >= more, PATIENCE_SECONDS, every_seconds=0.02)  # type: ignore[misc]
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    assert arrived(kafka, topic_name) < BATCHES * RECORDS, "a machine as fast as this needs more batches"
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=4 * PATIENCE_SECONDS)
    assert done.returncode == 0, done.stderr
    assert stored(kafka, topic_name) == values(BATCHES * RECORDS)
    again = subprocess.run(command, capture_output=True, text=True, check=True, timeout=4 * PATIENCE_SECONDS)
    assert again.stdout.startswith("0 records in 0 batches")
    assert stored(kafka, topic_name) == values(BATCHES * RECORDS)
