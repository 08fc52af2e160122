"""Reading the embedded log, even while a receiver writes to it: whole, sound batches up to the checkpoint.

Nothing here takes the lock or changes a file. A damaged batch is skipped with a warning; the receiver that owns the
directory sets it aside the next time it opens the log.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import ClassVar, NamedTuple

import structlog

from logreceiver.sinks import RunState
from logreceiver.sinks.log import files
from logreceiver.sinks.log.files import Damaged, placed
from logreceiver.sinks.log.producers import Producers
from streams.errors import BatchCorrupt, Code, SinkUnavailable
from streams.records import batch as recordbatch
from streams.records.batch import Header, Record

FOLLOW_SECONDS = 0.2
MAX_BATCH_BYTES = 256 * 1024 * 1024
"""Limit for a decompressed batch."""

log = structlog.get_logger("logreceiver.log")


class StoredBatch(NamedTuple):
    """A batch as stored; its CRC is correct."""

    partition: int
    header: Header
    payload: bytes


class PartitionReader:
    """Reads one partition; `poll` yields the batches that were added since the last call."""

    def __init__(self, path: Path, partition: int, *, from_offset: int = 0) -> None:
        self._path = path
        self.partition = partition
        self._next_offset = from_offset
        self._segment = -1
        """Base offset of the segment that `_position` is in."""
        self._position = 0
        self._expected = 0
        """The offset that the batch at `_position` should have."""
        self.damaged = 0

    def poll(self) -> Iterator[StoredBatch]:
        """Batches up to the current checkpoint."""
        limit = files.read_checkpoint(self._path)
        found = files.segments(self._path)
        first = max((base for base, _ in found if base <= self._next_offset), default=0)
        for base_offset, path in found:
            if base_offset < max(first, self._segment) or (limit is not None and base_offset >= limit):
                continue
            if base_offset != self._segment:
                self._segment, self._position, self._expected = base_offset, 0, max(base_offset, self._expected)
            yield from self._read(path, limit)

    def _read(self, path: Path, limit: int | None) -> Iterator[StoredBatch]:
        fd = os.open(path, os.O_RDONLY)
        try:
            end = os.fstat(fd).st_size
            while self._position < end and (limit is None or self._expected < limit):
                try:
                    one = placed(fd, self._position, end, next_offset=self._expected, verify=False)
                    if limit is not None and one.header.base_offset >= limit:
                        return
                    payload = os.pread(fd, one.header.size, self._position)
                    if one.next_offset > self._next_offset:
                        recordbatch.check(payload)
                except (Damaged, BatchCorrupt) as damage:
                    if limit is None:
                        return  # without a checkpoint the first damage is taken for the end
                    sound = files.find_next(fd, self._position + 1, end, next_offset=self._expected)
                    log.warning(
                        "damaged batch skipped",
                        segment=str(path),
                        position=self._position,
                        bytes=sound - self._position,
                        reason=str(damage),
                    )
                    self.damaged += 1
                    self._position = sound
                    continue
                self._position, self._expected = one.end, one.next_offset
                if one.next_offset > self._next_offset:
                    self._next_offset = one.next_offset
                    yield StoredBatch(self.partition, one.header, payload)
        finally:
            os.close(fd)


def readers(
    directory: Path, topic: str, *, partition: int | None = None, from_offset: int = 0
) -> list[PartitionReader]:
    """A reader for each partition of a topic, or for one. FileNotFoundError if there is none."""
    found = [
        PartitionReader(path, number, from_offset=from_offset)
        for name, number, path in files.partitions(directory)
        if name == topic and partition in (None, number)
    ]
    if not found:
        where = topic if partition is None else f"{topic}-{partition}"
        raise FileNotFoundError(f"{directory} has no {where}")
    return found


def read_records(
    directory: Path, topic: str, *, partition: int | None = None, from_offset: int = 0, follow: bool = False
) -> Iterator[Record]:
    """Records of a topic, partition by partition, from an offset on; with `follow` also those added later."""
    sources = readers(directory, topic, partition=partition, from_offset=from_offset)
    while True:
        for reader in sources:
            for batch in reader.poll():
                for record in recordbatch.iterate(batch.payload, max_bytes=MAX_BATCH_BYTES):
                    if record.offset >= from_offset:
                        yield record
        if not follow:
            return
        time.sleep(FOLLOW_SECONDS)


class LogReader:
    """A `Reader` of the log in a directory. Its answers are those of the moment when they were first asked for."""

    asking_is_cheap: ClassVar[bool] = False

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._known: dict[tuple[str, int], Producers] = {}

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def read_all(self, topic: str) -> AsyncIterator[bytes]:
        try:
            for record in read_records(self._directory, topic):
                yield record.value or b""
        except FileNotFoundError as error:
            raise SinkUnavailable(Code.TOPIC_MISSING, str(error)) from error

    async def ask(self, topic: str, partition: int, producer_id: int) -> RunState | None:
        """What the partition knows of a producer, found by reading all its batches, once."""
        known = self._known.get((topic, partition))
        if known is None:
            known = self._known[topic, partition] = self._producers(topic, partition)
        return known.state(producer_id)

    def _producers(self, topic: str, partition: int) -> Producers:
        known = Producers()
        try:
            for batch in readers(self._directory, topic, partition=partition)[0].poll():
                known.record(batch.header, batch.header.base_offset)
        except FileNotFoundError as error:
            raise SinkUnavailable(Code.TOPIC_MISSING, str(error)) from error
        return known
