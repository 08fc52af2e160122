"""Reads a whole topic from Apache Kafka as it is now: for small topics that the receiver itself wrote.

Every partition is read from its earliest offset up to its end at the time of the call. A batch may have any timestamp
type, as the broker may have rewritten it; codecs are those of recordbatch.py. Values are copied.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.record.default_records import DefaultRecordBatch

from logreceiver.sinks.kafka.client import Cluster
from logreceiver.sinks.kafka.errors import LEADER_NOT_AVAILABLE, NO_ERROR, raise_for
from streams.errors import BatchCorrupt, Code, SinkUnavailable
from streams.records.batch import HEADER_BYTES, MAGIC, Codec, parse_header
from streams.records.body import rows
from streams.records.decompress import unzstd

FETCH_BYTES = 4 * 1024 * 1024
FETCH_WAIT_MS = 500
MAX_BATCH_BYTES = 64 * 1024 * 1024
"""Limit for a decompressed batch."""
_EARLIEST, _LATEST = -2, -1
_LENGTH_AT, _BEFORE_LENGTH_BYTES = 8, 12
_CONTROL = 0x20


async def read_all(cluster: Cluster, topic: str) -> AsyncIterator[bytes]:
    """The values of a topic, partition by partition. SinkUnavailable if it cannot be read."""
    found = await cluster.topic(topic)
    raise_for(found.error_code if found.error_code != LEADER_NOT_AVAILABLE else NO_ERROR, f"topic {topic}")
    for partition in sorted(found.leaders):
        node = await cluster.leader(topic, partition)
        offset = await _offset(cluster, node, topic, partition, _EARLIEST)
        end = await _offset(cluster, node, topic, partition, _LATEST)
        while offset < end:
            data = await _fetch(cluster, node, topic, partition, offset)
            before = offset
            for next_offset, values in _batches(data, f"{topic}-{partition}"):
                for record_offset, value in values:
                    if before <= record_offset < end:
                        yield value
                offset = next_offset
            if offset == before:
                raise SinkUnavailable(Code.UNAVAILABLE, f"{topic}-{partition}: no whole batch at offset {offset}")


async def _offset(cluster: Cluster, node: int, topic: str, partition: int, which: int) -> int:
    response = await cluster.call(node, OffsetRequest(-1, 0, [(topic, [(partition, which)])]))
    row = response.topics[0][1][0]
    raise_for(row[1], f"{topic}-{partition}")
    return int(row[3])


async def _fetch(cluster: Cluster, node: int, topic: str, partition: int, offset: int) -> bytes:
    where = [(topic, [(partition, offset, FETCH_BYTES)])]
    response = await cluster.call(node, FetchRequest(FETCH_WAIT_MS, 1, FETCH_BYTES, 0, where))
    row: Any = response.topics[0][1][0]
    raise_for(row[1], f"{topic}-{partition}")
    return row[-1] or b""


def _batches(data: bytes, where: str) -> Iterator[tuple[int, list[tuple[int, bytes]]]]:
    """For each whole batch: the next offset, its values with their offsets. A broker may cut the last batch short."""
    at = 0
    while at + HEADER_BYTES <= len(data):
        size = int.from_bytes(data[at + _LENGTH_AT : at + _BEFORE_LENGTH_BYTES], "big") + _BEFORE_LENGTH_BYTES
        if at + size > len(data):
            return
        batch = data[at : at + size]
        header = parse_header(batch)
        try:
            values = [] if header.attributes & _CONTROL else list(_values(batch))
        except BatchCorrupt as error:
            raise SinkUnavailable(Code.CORRUPT, f"{where} at offset {header.base_offset}: {error}") from error
        yield header.base_offset + header.last_offset_delta + 1, values
        at += size


def _values(batch: bytes) -> Iterator[tuple[int, bytes]]:
    header = parse_header(batch)
    if header.magic != MAGIC or not DefaultRecordBatch(batch).validate_crc():
        raise BatchCorrupt("not a sound batch of message format v2")
    body = memoryview(batch)[HEADER_BYTES:]
    plain = unzstd(body, MAX_BATCH_BYTES) if header.codec is Codec.ZSTD else bytes(body)
    for row in rows(plain, header.record_count):
        yield header.base_offset + row.offset_delta, row.value or b""
