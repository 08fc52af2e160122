"""Reading the embedded log, even while a receiver writes to it: whole, sound batches up to the checkpoint.

Nothing here takes the lock or changes a file. Every acknowledged offset is either read, or was deleted by retention, or
is named as damage: bytes that are no batch, batches that were set aside, records that cannot be read, segments that are
missing or end early. Without its checkpoint a partition is read up to the first damage, as nothing says what of the
rest was acknowledged.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import structlog

from logreceiver.sinks.log import files, meta, snapshot
from logreceiver.sinks.log.damage import Damage, OnDamage, ignore, stop
from logreceiver.sinks.log.files import CHECKPOINT, Damaged, placed
from logreceiver.sinks.log.snapshot import SNAPSHOT, SnapshotUnusable
from streams.errors import BatchCorrupt, ConfigError
from streams.records import batch as recordbatch
from streams.records.batch import Header, Record

FOLLOW_SECONDS = 0.2
MAX_BATCH_BYTES = 256 * 1024 * 1024
"""Limit for a decompressed batch: earlier versions stored what no limit held back."""

log = structlog.get_logger("logreceiver.log")


class StoredBatch(NamedTuple):
    """A batch as stored, and where; its CRC is correct."""

    partition: int
    header: Header
    payload: bytes
    path: Path
    position: int

    @property
    def next_offset(self) -> int:
        return self.header.base_offset + self.header.record_count

    def unreadable(self, error: BatchCorrupt) -> Damage:
        """What to say of it if its records cannot be read."""
        reason = f"the records of a batch cannot be read: {error}"
        return Damage(self.path, reason, self.header.base_offset, self.next_offset, self.position)


class PartitionReader:
    """Reads one partition; `poll` yields the batches that were added since the last call."""

    def __init__(self, path: Path, partition: int, *, from_offset: int = 0, on_damage: OnDamage = stop) -> None:
        self.path = path
        self.partition = partition
        self.begins_at = 0
        """The first offset that is not deleted, as of the last `poll`."""
        self.on_damage = on_damage
        self._wanted = from_offset
        """What is before it need not be read."""
        self._segment = -1
        """Base offset of the segment that `_position` is in."""
        self._position = 0
        self._expected = -1
        """The offset that the batch at `_position` should have; −1 before the first `poll`."""

    def start_at(self, offset: int) -> None:
        """Begin there; before the first `poll`."""
        self._wanted = offset

    def poll(self) -> Iterator[StoredBatch]:
        """Batches up to the current checkpoint."""
        limit = self._limit()  # before the names: so all that it covers has one
        found = files.segments(self.path)
        if limit is None and found:
            self.on_damage(Damage(self.path / CHECKPOINT, "missing or damaged: what was acknowledged is not known"))
        self._begin(found)
        found = [(base_offset, path) for base_offset, path in found if base_offset >= self._start(found)]
        ends = [*(base for base, _ in found[1:]), limit]
        for (base_offset, path), end in zip(found, ends, strict=False):
            if limit is not None and base_offset >= limit:
                break
            if end is not None and end <= self._expected:
                continue
            if base_offset != self._segment:
                self._lack(base_offset, self.path, "a segment is missing, or the one before ends early")
                self._segment, self._position = base_offset, 0
            yield from self._read(path, limit, self._expected if end is None else end)
        if limit is not None:
            self._lack(limit, found[-1][1] if found else self.path, "ends early")

    def _limit(self) -> int | None:
        """The checkpoint; read again if it is unusable, as it may be just being written."""
        return next((found for _ in range(3) if (found := files.read_checkpoint(self.path)) is not None), None)

    def _begin(self, found: list[tuple[int, Path]]) -> None:
        """Learn where the log begins now: after its segments were listed, which are deleted only after that is said."""
        try:
            self.begins_at = snapshot.read(self.path).offset
        except SnapshotUnusable as error:
            self.on_damage(Damage(self.path / SNAPSHOT, f"where the log begins is not known: {error}"))
            self.begins_at = found[0][0] if found else 0
        if self.begins_at > max(self._expected, self._wanted):
            log.warning("older records were deleted", partition=self.path.name, begins_at=self.begins_at)
        if self._expected < 0:
            within = max((base for base, _ in found if base <= self._wanted), default=self.begins_at)
            self._expected = max(within, self.begins_at)
        self._expected = max(self._expected, self.begins_at)

    def _start(self, found: list[tuple[int, Path]]) -> int:
        """Base offset of the first segment that may hold what comes next."""
        return max((base for base, _ in found if base <= self._expected), default=0)

    def _lack(self, until: int, path: Path, reason: str, position: int | None = None) -> None:
        """Offsets up to `until` are not there; said if somebody wants them, or if bytes are there that are no batch."""
        since = max(self._expected, self._wanted)
        if until > since or (position is not None and self._expected >= self._wanted):
            self.on_damage(Damage(path, reason, since, until, position))
        self._expected = max(self._expected, until)

    def _read(self, path: Path, limit: int | None, following: int) -> Iterator[StoredBatch]:
        """One segment; `following` is the offset after it."""
        known_end = None if limit is None else following
        try:
            fd = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            self._begin([])
            if self.begins_at <= self._segment:
                self._lack(following, path, "missing")
            return
        try:
            end = os.fstat(fd).st_size
            while self._position < end and (limit is None or self._expected < limit):
                try:
                    one = placed(fd, self._position, end, next_offset=self._expected, limit=known_end, verify=False)
                    if limit is not None and one.header.base_offset >= limit:
                        return
                    payload = os.pread(fd, one.header.size, self._position)
                    if one.next_offset > self._wanted:
                        recordbatch.check(payload)
                except (Damaged, BatchCorrupt) as damage:
                    if limit is None:
                        return
                    self._pass(fd, path, end, following, str(damage))
                    continue
                if one.header.base_offset > self._expected:
                    self._lack(one.header.base_offset, path, _aside(path, self._expected), self._position)
                position, self._position, self._expected = self._position, one.end, one.next_offset
                if one.next_offset > self._wanted:
                    self._wanted = one.next_offset
                    yield StoredBatch(self.partition, one.header, payload, path, position)
        finally:
            os.close(fd)

    def _pass(self, fd: int, path: Path, end: int, following: int, reason: str) -> None:
        """Go on at the next sound batch behind the damage at `_position`."""
        damaged, self._position = (
            self._position,
            files.find_next(fd, self._position + 1, end, next_offset=self._expected, limit=following),
        )
        if self._position < end:
            following = recordbatch.parse_header(os.pread(fd, recordbatch.HEADER_BYTES, self._position)).base_offset
        self._lack(following, path, reason, damaged)


def _aside(path: Path, offset: int) -> str:
    """Why offsets are lacking between two sound batches."""
    if aside := sorted(each.name for each in path.parent.glob(f"{path.stem}.*.damaged")):
        return f"from offset {offset} on batches are lacking that were damaged, and set aside in {', '.join(aside)}"
    return f"from offset {offset} on batches are lacking"


def readers(
    directory: Path, topic: str, *, partition: int | None = None, from_offset: int = 0, on_damage: OnDamage = stop
) -> list[PartitionReader]:
    """A reader for each partition of a topic, or for one. FileNotFoundError if there is none."""
    found = {number: path for name, number, path in files.partitions(directory) if name == topic}
    lacking = set(range(_partition_count(directory, topic, on_damage if found else ignore))) - found.keys()
    for number in sorted(lacking):
        if partition in (None, number):
            on_damage(Damage(directory / f"{topic}-{number}", "missing"))
    if not any(partition in (None, number) for number in found):
        where = topic if partition is None else f"{topic}-{partition}"
        raise FileNotFoundError(f"{directory} has no {where}")
    return [
        PartitionReader(path, number, from_offset=from_offset, on_damage=on_damage)
        for number, path in sorted(found.items())
        if partition in (None, number)
    ]


def _partition_count(directory: Path, topic: str, on_damage: OnDamage) -> int:
    """How many partitions a topic should have; 0 if that is not known."""
    path = directory / meta.META
    try:
        known = meta.topics_in(path).get(topic)
    except FileNotFoundError:
        on_damage(Damage(path, "missing"))
        return 0
    except ConfigError as error:
        on_damage(Damage(path, error.problems[0].message))
        return 0
    return 0 if known is None else known.partition_count


def read_records(
    directory: Path,
    topic: str,
    *,
    partition: int | None = None,
    from_offset: int = 0,
    follow: bool = False,
    on_damage: OnDamage = stop,
) -> Iterator[Record]:
    """Records of a topic, partition by partition, from an offset on; with `follow` also those added later."""
    sources = readers(directory, topic, partition=partition, from_offset=from_offset, on_damage=on_damage)
    while True:
        for reader in sources:
            for batch in reader.poll():
                yield from (record for record in _records(batch, on_damage) if record.offset >= from_offset)
        if not follow:
            return
        time.sleep(FOLLOW_SECONDS)


def _records(batch: StoredBatch, on_damage: OnDamage) -> list[Record]:
    """All records of a batch, or none."""
    try:
        return list(recordbatch.iterate(batch.payload, max_bytes=MAX_BATCH_BYTES))
    except BatchCorrupt as error:
        on_damage(batch.unreadable(error))
        return []
