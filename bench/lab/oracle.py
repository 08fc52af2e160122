"""Finds out what became of numbered records: it reads a topic with librdkafka and shares no code with the product.

A record is a JSON object with `n`, which rises by one from 0 in its source, and `stream`, the name of that source.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

POLL_SECONDS = 1.0
SILENT_POLLS = 30
KNOWN_SECONDS = 30
CHUNK_RECORDS = 10_000


class OracleFailed(Exception):
    """The topic could not be read to its end, so nothing is known about the records."""


@dataclass(frozen=True)
class Finding:
    """The records of one stream, numbered from 0; each must be stored once, in order."""

    stream: str
    sent: int
    stored: int
    missing: int
    twice: int
    out_of_order: int
    foreign: int = 0
    """Records that were never sent to this stream: from another source, with an unused number, or unreadable."""
    excused: int = 0
    """Records that are not stored, and that nothing promises."""

    @property
    def exact(self) -> bool:
        wrong = self.missing or self.twice or self.out_of_order or self.foreign
        return not wrong and self.stored + self.excused == self.sent


def judge(
    stream: str, sent: int, values: Iterable[bytes], *, source: str, may_be_lost: Iterable[range] = ()
) -> Finding:
    """Count missing records, repeated ones, and those whose first copy follows a later record.

    `may_be_lost`: numbers of records that are not promised to be stored; if they are, then once and in order.
    """
    seen = bytearray(sent)
    stored = twice = late = foreign = 0
    highest = -1
    for value in values:
        stored += 1
        number = _number(value, source)
        if not 0 <= number < sent:
            foreign += 1
        elif seen[number]:
            twice += 1
        else:
            seen[number] = 1
            late += number < highest
            highest = max(highest, number)
    excused = sum(seen.count(0, each.start, each.stop) for each in may_be_lost)
    return Finding(stream, sent, stored, seen.count(0) - excused, twice, late, foreign, excused)


def _number(value: bytes, source: str) -> int:
    try:
        record = json.loads(value)
        return int(record["n"]) if record["stream"] == source else -1
    except (ValueError, KeyError, TypeError):
        return -1


def read_topic(bootstrap: str, topic: str) -> Iterator[bytes]:
    """The values that are in a topic now, partition by partition, each in order."""
    return (message.value() or b"" for message in messages_in(bootstrap, topic))


def messages_in(bootstrap: str, topic: str) -> Iterator[Any]:
    """The same as librdkafka's messages, which have a key and headers, too."""
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "oracle",
            "enable.auto.commit": False,
            "check.crcs": True,
            "fetch.wait.max.ms": 10,  # the end of one partition is not waited at before the next one, and the close
        }
    )
    try:
        for partition in consumer.list_topics(topic, timeout=KNOWN_SECONDS).topics[topic].partitions:
            where = TopicPartition(topic, partition, 0)
            first, end = _bounds(consumer, where)
            if first:
                raise OracleFailed(f"{topic}: records before offset {first} have been deleted")
            if end:
                consumer.assign([where])
                yield from _read_to(consumer, where, end)
    finally:
        consumer.close()


def _bounds(consumer: Any, where: Any) -> tuple[int, int]:
    """The first offset and the one after the last; a broker that is just back may not know a partition for a moment."""
    from confluent_kafka import KafkaError, KafkaException

    deadline = time.monotonic() + KNOWN_SECONDS
    while True:
        try:
            first, end = consumer.get_watermark_offsets(where, timeout=KNOWN_SECONDS)
            return first, end
        except KafkaException as error:
            if error.args[0].code() != KafkaError._UNKNOWN_PARTITION or time.monotonic() > deadline:
                raise
        time.sleep(0.1)
        consumer.list_topics(where.topic, timeout=KNOWN_SECONDS)


def _read_to(consumer: Any, where: object, end: int) -> Iterator[Any]:
    silent, offset = 0, 0
    while offset < end:
        messages = consumer.consume(min(CHUNK_RECORDS, end - offset), POLL_SECONDS)
        silent = 0 if messages else silent + 1
        if silent > SILENT_POLLS:
            raise OracleFailed(f"{offset} of {end} offsets read, then no record for {SILENT_POLLS} polls")
        for message in messages:
            if message.error():
                raise OracleFailed(str(message.error()))
            offset = message.offset() + 1
            yield message
