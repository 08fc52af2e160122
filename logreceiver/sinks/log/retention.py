"""Deletes the oldest segments of a partition by bytes and by age, and keeps what they said about their producers.

The age of a segment is that of its file's last change: the times in records are what forwarders say. The segment that
is appended to is never deleted, however old or large.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import structlog

from logreceiver.sinks.log import files, snapshot
from logreceiver.sinks.log.files import Damaged, placed
from logreceiver.sinks.log.producers import Producers
from logreceiver.sinks.log.snapshot import Snapshot, SnapshotUnusable
from logreceiver.sinks.settings import LogSink
from streams.files import sync_directory

REMEMBER_SECONDS = 86_400.0
"""How long a producer is known after its last batch, at least: as long as by a Kafka broker."""

LEDGER_FACTOR = 10

log = structlog.get_logger("logreceiver.log")


class Retention(NamedTuple):
    """How much of each partition is kept; None keeps everything."""

    max_bytes: int | None = None
    max_age_seconds: float | None = None


def retention_of(settings: LogSink, *, ledger: bool) -> Retention:
    """What is kept of a topic; the ledger is small, and is asked about what is long gone, so it is kept longer."""
    if not ledger:
        return Retention(settings.retain_bytes, settings.retain_age_seconds)
    size, age = settings.ledger_retain_bytes, settings.ledger_retain_age_seconds
    if size is None and settings.retain_bytes is not None:
        size = LEDGER_FACTOR * settings.retain_bytes
    if age is None and settings.retain_age_seconds is not None:
        age = LEDGER_FACTOR * settings.retain_age_seconds
    return Retention(size, age)


class _Segment(NamedTuple):
    base_offset: int
    path: Path
    size: int
    changed: float


def trim(partition: Path, retention: Retention, now: float) -> Snapshot | None:
    """Delete what is too much or too old at `now` (Unix seconds); the log's new beginning, if there is one. OSError."""
    segments = [
        _Segment(base_offset, path, found.st_size, found.st_mtime)
        for base_offset, path in files.segments(partition)
        for found in (path.stat(),)
    ]
    count = _too_many(segments, retention, now)
    if not count:
        return None
    begin = _beginning(partition, segments[:count], segments[count].base_offset, now)
    snapshot.write(partition, begin)
    delete_before(partition, begin.offset)
    log.info("old segments deleted", partition=partition.name, segments=count, begins_at=begin.offset)
    return begin


def _too_many(segments: list[_Segment], retention: Retention, now: float) -> int:
    """How many of the oldest have to go."""
    left = sum(segment.size for segment in segments)
    for count, segment in enumerate(segments[:-1]):
        too_large = retention.max_bytes is not None and left > retention.max_bytes
        too_old = retention.max_age_seconds is not None and now - segment.changed > retention.max_age_seconds
        if not (too_large or too_old):
            return count
        left -= segment.size
    return max(len(segments) - 1, 0)


def _beginning(partition: Path, doomed: list[_Segment], offset: int, now: float) -> Snapshot:
    """What is known of the producers up to this offset, where the last of the doomed segments ends."""
    known = Producers()
    try:
        known.remember(snapshot.read(partition).producers)
    except SnapshotUnusable as error:
        log.error("producer snapshot unusable", partition=partition.name, reason=str(error))
    ends = [*(segment.base_offset for segment in doomed[1:]), offset]
    for segment, end in zip(doomed, ends, strict=True):
        _add(known, segment, end)
    since_ms = int((now - REMEMBER_SECONDS) * 1000)
    return Snapshot(offset, tuple(known.remembered(since_ms=since_ms)))


def _add(known: Producers, segment: _Segment, end: int) -> None:
    """What the headers of a segment up to an offset say. Damage was set aside at the start, or is passed over."""
    time_ms = int(segment.changed * 1000)
    fd = os.open(segment.path, os.O_RDONLY)
    try:
        position, next_offset = 0, segment.base_offset
        while position < segment.size:
            try:
                one = placed(fd, position, segment.size, next_offset=next_offset, limit=end, verify=False)
            except Damaged:
                position = files.find_next(fd, position + 1, segment.size, next_offset=next_offset, limit=end)
                continue
            known.record(one.header, one.header.base_offset, time_ms=time_ms)
            position, next_offset = one.end, one.next_offset
    finally:
        os.close(fd)


def delete_before(partition: Path, offset: int) -> None:
    """Delete the segments before the beginning of the log, and what was set aside of them. OSError."""
    gone = [path for base_offset, path in files.segments(partition) if base_offset < offset]
    for path in gone:
        for aside in partition.glob(f"{path.stem}.*.damaged"):
            aside.unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    if gone:
        sync_directory(partition)
