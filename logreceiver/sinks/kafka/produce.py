"""The Produce request: sends ready batches, reads back their offsets. Spelled out because it runs for every batch.

aiokafka's own encoder copies a payload once for each level of nesting, and its decoder builds an object for each field
of an answer, which together cost a receiver more than a batch's checks. Version 8 answers with the broker's own error
texts (KIP-467).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import NamedTuple

from aiokafka.protocol.api import RequestStruct
from aiokafka.protocol.produce import ProduceRequest_v7

from logreceiver.sinks.kafka.requests import OneVersion

_ALL_REPLICAS = -1
_ROW = struct.Struct(">ihqqqi")
_INT16, _INT32 = struct.Struct(">h"), struct.Struct(">i")


class Row(NamedTuple):
    """A broker's answer for one batch; `append_time_ms` is -1 unless the broker itself stamped the batch."""

    error_code: int
    offset: int
    append_time_ms: int
    text: str


class _Parts:
    """Header or body of a request. aiokafka adds the two, then prepends their length: only that copies them."""

    def __init__(self, *buffers: bytes | memoryview) -> None:
        self._buffers = buffers

    def encode(self) -> _Parts:
        return self

    def __len__(self) -> int:
        return sum(map(len, self._buffers))

    def __add__(self, more: _Parts) -> _Parts:
        return _Parts(*self._buffers, *more._buffers)

    def __radd__(self, front: bytes) -> bytes:
        return b"".join((front, *self._buffers))


class _AnswerHeader(NamedTuple):
    correlation_id: int


class _Answer:
    """Replaces aiokafka's generic decoder."""

    @staticmethod
    def decode(data: BytesIO) -> dict[tuple[str, int], Row]:
        """The rows by topic and partition; raises struct.error for an answer that is cut short."""
        rows = {}
        for _ in range(_int32(data)):
            topic = _string(data)
            for _ in range(_int32(data)):
                partition, error_code, offset, append_time, _, details = _ROW.unpack(data.read(_ROW.size))
                texts = [_detail(data) for _ in range(details)]
                rows[topic, partition] = Row(error_code, offset, append_time, _string(data) or "".join(texts[:1]))
        return rows


class Produce(OneVersion, RequestStruct):  # type: ignore[misc]
    """Ready batches, at most one per partition, acks=all."""

    API_KEY, API_VERSION, RESPONSE_TYPE = 0, 8, _Answer
    SCHEMA = ProduceRequest_v7.SCHEMA

    def __init__(self, batches: Mapping[str, Sequence[tuple[int, memoryview]]], *, timeout_ms: int) -> None:
        self._batches = batches
        self._timeout_ms = timeout_ms

    def build_request_header(self, correlation_id: int, client_id: str) -> _Parts:
        name = client_id.encode()
        return _Parts(struct.pack(">hhih", self.API_KEY, self.API_VERSION, correlation_id, len(name)) + name)

    def encode(self) -> _Parts:
        parts: list[bytes | memoryview] = [
            struct.pack(">hhii", -1, _ALL_REPLICAS, self._timeout_ms, len(self._batches))
        ]
        for topic, rows in self._batches.items():
            name = topic.encode()
            parts.append(_INT16.pack(len(name)) + name + _INT32.pack(len(rows)))
            for partition, batch in rows:
                parts += (struct.pack(">ii", partition, len(batch)), batch)
        return _Parts(*parts)

    def parse_response_header(self, data: BytesIO) -> _AnswerHeader:
        return _AnswerHeader(_int32(data))

    def __repr__(self) -> str:
        return f"Produce({ {topic: [row[0] for row in rows] for topic, rows in self._batches.items()} })"


def _int32(data: BytesIO) -> int:
    value: int = _INT32.unpack(data.read(4))[0]
    return value


def _string(data: BytesIO) -> str:
    """A nullable string; empty for null."""
    return data.read(max(_INT16.unpack(data.read(2))[0], 0)).decode()


def _detail(data: BytesIO) -> str:
    """What is wrong with one record of a batch; its index comes first and is skipped."""
    _int32(data)
    return _string(data)
