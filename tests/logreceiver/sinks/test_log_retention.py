"""The embedded log forgets its oldest segments, and neither what they said about producers nor where it begins."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from logreceiver.sinks import Kind, RunState
from logreceiver.sinks import settings as sink_settings
from logreceiver.sinks.log import files, snapshot
from logreceiver.sinks.log import sink as log_sink
from logreceiver.sinks.log.retention import Retention, retention_of, trim
from logreceiver.sinks.log.sink import LogSink, read_records
from tests.support.batches import batch, values

TOPIC = "http"
LEDGER = "the.ledger"
SEGMENT_BYTES = 400
BUSY, QUIET = 7, 8
DAY = 86_400.0


@asynccontextmanager
async def opened(directory: Path, **settings: Any) -> AsyncIterator[LogSink]:
    made = sink_settings.LogSink(directory=directory, max_segment_bytes=SEGMENT_BYTES, **settings)
    sink = LogSink(made, ledger_topic=LEDGER)
    await sink.start()
    try:
        await sink.topic(TOPIC)
        yield sink
    finally:
        await sink.close()


async def append(sink: LogSink, count: int, *, first: int = 0, topic: str = TOPIC) -> None:
    for number in range(first, first + count):
        assert (await sink.produce(topic, 0, batch(BUSY, 10 * number))).kind is Kind.STORED


def partition(directory: Path, topic: str = TOPIC) -> Path:
    return directory / f"{topic}-0"


def sizes(directory: Path, topic: str = TOPIC) -> list[int]:
    return [path.stat().st_size for _, path in files.segments(partition(directory, topic))]


def first_offset(directory: Path) -> int:
    return next(read_records(directory, TOPIC)).offset


async def until(sink: LogSink, holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await sink.ask(TOPIC, 0, BUSY)


async def test_without_retention_everything_stays(tmp_path: Path) -> None:
    async with opened(tmp_path) as sink:
        await append(sink, 20)
    assert [record.value for record in read_records(tmp_path, TOPIC)] == values(200)
    assert not (partition(tmp_path) / snapshot.SNAPSHOT).exists()


async def test_a_partition_takes_no_more_bytes_than_are_kept_and_a_segment(tmp_path: Path) -> None:
    async with opened(tmp_path, retain_bytes=1500) as sink:
        await append(sink, 30)
    assert 1500 - SEGMENT_BYTES < sum(sizes(tmp_path)) <= 1500 + SEGMENT_BYTES
    begin = snapshot.read(partition(tmp_path)).offset
    assert begin == first_offset(tmp_path) == files.segments(partition(tmp_path))[0][0]
    assert [record.value for record in read_records(tmp_path, TOPIC)] == values(300 - begin, begin)


async def test_the_segment_that_is_appended_to_stays_however_large_and_old_it_is(tmp_path: Path) -> None:
    async with opened(tmp_path) as sink:
        await append(sink, 3)
    assert len(sizes(tmp_path)) > 1
    assert trim(partition(tmp_path), Retention(1, 1.0), time.time() + DAY) is not None
    assert len(sizes(tmp_path)) == 1
    assert trim(partition(tmp_path), Retention(1, 1.0), time.time() + DAY) is None


async def test_what_is_too_old_goes_and_what_is_younger_stays(tmp_path: Path) -> None:
    async with opened(tmp_path) as sink:
        await append(sink, 12)
    paths = [path for _, path in files.segments(partition(tmp_path))]
    for age, path in zip((5, 4, 1), paths, strict=False):
        os.utime(path, (time.time(), time.time() - 3600 * age))
    async with opened(tmp_path, retain_age_seconds=3 * 3600.0) as sink:
        await until(sink, lambda: [path for _, path in files.segments(partition(tmp_path))] == paths[2:])


async def test_a_batch_whose_segment_is_gone_is_recognised_also_after_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path, retain_bytes=1000) as sink:
        for number in range(7):
            assert (await sink.produce(TOPIC, 0, batch(QUIET, 10 * number))).kind is Kind.STORED
        await append(sink, 30)
        await until(sink, lambda: first_offset(tmp_path) > 70)
        assert (await sink.produce(TOPIC, 0, batch(QUIET, 60))).kind is Kind.DUPLICATE
    for _ in range(2):
        async with opened(tmp_path, retain_bytes=1000) as sink:
            assert await sink.ask(TOPIC, 0, QUIET) == RunState(0, 69)
            for number in range(2, 7):
                again = await sink.produce(TOPIC, 0, batch(QUIET, 10 * number))
                assert (again.kind, again.base_offset) == (Kind.DUPLICATE, 10 * number)
    async with opened(tmp_path, retain_bytes=1000) as sink:
        assert (await sink.produce(TOPIC, 0, batch(QUIET, 70))).kind is Kind.STORED
        await append(sink, 30, first=30)  # a second deletion takes over what the first knew
    async with opened(tmp_path) as sink:
        assert (await sink.produce(TOPIC, 0, batch(QUIET, 70))).kind is Kind.DUPLICATE
        assert (await sink.produce(TOPIC, 0, batch(QUIET, 40))).kind is Kind.DUPLICATE


async def test_a_producer_is_forgotten_a_day_after_its_last_batch_and_not_before(tmp_path: Path) -> None:
    async with opened(tmp_path) as sink:
        await sink.produce(TOPIC, 0, batch(QUIET, 0))
        await append(sink, 12)
        one, two = (path for _, path in files.segments(partition(tmp_path))[:2])
        now = time.time()
        os.utime(one, (now, now - DAY + 3600))
        trim(partition(tmp_path), Retention(sum(sizes(tmp_path)) - 1), now)
        assert not one.exists()
        assert [each.producer_id for each in snapshot.read(partition(tmp_path)).producers] == [QUIET, BUSY]
        os.utime(two, (now, now))
        trim(partition(tmp_path), Retention(sum(sizes(tmp_path)) - 1), now + 7200)
        assert [each.producer_id for each in snapshot.read(partition(tmp_path)).producers] == [BUSY]


async def test_memory_holds_no_producer_longer_than_the_disk(tmp_path: Path) -> None:
    async with opened(tmp_path, retain_bytes=1000) as sink:
        await sink.produce(TOPIC, 0, batch(QUIET, 0))
        await append(sink, 3)
        path = files.segments(partition(tmp_path))[0][1]
        os.utime(path, (0, 0))
        await append(sink, 12, first=3)
        await until(sink, lambda: not path.exists())
        assert await sink.ask(TOPIC, 0, QUIET) is None
        assert await sink.ask(TOPIC, 0, BUSY) == RunState(0, 149)


def test_the_ledger_is_kept_ten_times_as_long_or_as_it_is_told() -> None:
    def of(ledger: bool, **keys: Any) -> Retention:
        return retention_of(sink_settings.LogSink(directory=Path(), **keys), ledger=ledger)

    assert of(True) == of(False) == Retention(None, None)
    assert of(False, retain_bytes=5, retain_age_seconds=60.0) == Retention(5, 60.0)
    assert of(True, retain_bytes=5, retain_age_seconds=60.0) == Retention(50, 600.0)
    told = {"ledger_retain_bytes": 7, "ledger_retain_age_seconds": 90.0}
    assert of(True, retain_bytes=5, **told) == of(True, **told) == Retention(7, 90.0)
    assert of(False, **told) == Retention(None, None)


async def test_a_sink_keeps_the_ledger_longer_than_the_data(tmp_path: Path) -> None:
    async with opened(tmp_path, retain_bytes=500) as sink:
        await sink.topic(LEDGER)
        await append(sink, 20)
        await append(sink, 20, topic=LEDGER)
    assert sum(sizes(tmp_path)) <= 500 + SEGMENT_BYTES < sum(sizes(tmp_path, LEDGER))


async def test_segments_before_the_beginning_that_a_crash_left_are_deleted(tmp_path: Path) -> None:
    async with opened(tmp_path) as sink:
        await append(sink, 12)
    kept = [(path, path.read_bytes()) for _, path in files.segments(partition(tmp_path))]
    aside = kept[0][0].with_suffix(".17.damaged")
    aside.write_bytes(b"x")
    trim(partition(tmp_path), Retention(max_bytes=900), time.time())
    begin = snapshot.read(partition(tmp_path)).offset
    assert begin > 0
    assert not aside.exists()
    for path, content in kept:
        path.write_bytes(content)
    async with opened(tmp_path):
        assert files.segments(partition(tmp_path))[0][0] == begin


async def test_a_damaged_snapshot_is_said_and_the_rest_of_the_log_is_used(tmp_path: Path) -> None:
    async with opened(tmp_path, retain_bytes=1000) as sink:
        await append(sink, 20)
    path = partition(tmp_path) / snapshot.SNAPSHOT
    data = bytearray(path.read_bytes())
    for damaged in (b"", bytes([*data[:-1], data[-1] ^ 1]), b"\0" * 9):
        path.write_bytes(damaged)
        with capture_logs() as said:
            async with opened(tmp_path) as sink:
                assert await sink.ask(TOPIC, 0, BUSY) == RunState(0, 199)
        assert "producer snapshot unusable" in [each["event"] for each in said]


async def test_a_deletion_that_fails_is_said_and_batches_are_stored_nevertheless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(snapshot, "write", broken)
    with capture_logs() as said:
        async with opened(tmp_path, retain_bytes=500) as sink:
            await append(sink, 12)
    assert [record.value for record in read_records(tmp_path, TOPIC)] == values(120)
    assert "old segments not deleted" in [each["event"] for each in said]


async def test_age_is_looked_at_while_nothing_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_sink, "TRIM_SECONDS", 0.01)
    async with opened(tmp_path, retain_age_seconds=3600.0) as sink:
        await append(sink, 12)
        before = len(sizes(tmp_path))
        for _, path in files.segments(partition(tmp_path)):
            os.utime(path, (0, 0))
        assert before > 1
        await until(sink, lambda: len(sizes(tmp_path)) == 1)
