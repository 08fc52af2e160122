"""Readers of the embedded log name every damage, stop at it, and go on behind it only if they are told to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from logreceiver.sinks import Held
from logreceiver.sinks import settings as sink_settings
from logreceiver.sinks.log import files, snapshot
from logreceiver.sinks.log.damage import Damage, LogDamaged, Skip
from logreceiver.sinks.log.reader import LogReader
from logreceiver.sinks.log.sink import LogSink, read_records
from logreceiver.sinks.log.snapshot import Snapshot
from streams.records.batch import HEADER_BYTES, Codec, parse_header
from tests.streams.records.test_batch import rewritten
from tests.support.batches import batch, values

TOPIC = "http"
SEGMENTS = 5
"""Of two batches of ten records each."""


@pytest.fixture
async def partition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A log of ten batches, the sixth of them with records that earlier versions took and nobody can read."""
    monkeypatch.setattr("logreceiver.sinks.log.look.walk", lambda *_: None)
    sink = LogSink(sink_settings.LogSink(directory=tmp_path, max_segment_bytes=500))
    await sink.start()
    await sink.topic(TOPIC)
    for number in range(10):
        made = bytes(batch(7, 10 * number, codec=Codec.NONE))
        await sink.produce(TOPIC, 0, memoryview(garbage(made) if number == GARBAGE else made))
    await sink.close()
    found = tmp_path / f"{TOPIC}-0"
    assert len(files.segments(found)) == SEGMENTS
    return found


GARBAGE = 5
UNREADABLE = (50, 60)


def garbage(made: bytes) -> bytes:
    return rewritten(made, body=b"\xff" * (len(made) - HEADER_BYTES), attributes=Codec.ZSTD)


def segment(partition: Path, number: int) -> Path:
    return files.segments(partition)[number][1]


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def delete(partition: Path, *, before: int = 1000) -> None:
    for base, path in files.segments(partition):
        if base < before:
            path.unlink()


def second_batch(path: Path) -> int:
    return parse_header(path.read_bytes()).size


Harm = Callable[[Path], object]
HARM: dict[str, tuple[Harm, str, str, list[tuple[int, int]]]] = {
    "payload": (lambda p: flip(segment(p, 1), 100), "0020.log at byte 0", "CRC-32C", [(20, 30)]),
    "magic": (lambda p: flip(segment(p, 1), 16), "0020.log at byte 0", "header", [(20, 30)]),
    "base offset": (lambda p: flip(segment(p, 1), 7), "0020.log at byte 0", "base offset", [(20, 30)]),
    "length": (lambda p: flip(segment(p, 1), 10), "0020.log at byte 0", "header", [(20, 30)]),
    "end of a segment": (
        lambda p: segment(p, 1).write_bytes(segment(p, 1).read_bytes()[:-7]),
        "0020.log at byte",
        "header",
        [(30, 40)],
    ),
    "end at a batch": (
        lambda p: segment(p, 1).write_bytes(segment(p, 1).read_bytes()[: second_batch(segment(p, 1))]),
        "http-0: a segment is missing, or the one before ends early",
        "early",
        [(30, 40)],
    ),
    "empty segment": (lambda p: segment(p, 1).write_bytes(b""), "http-0: a segment is missing", "missing", [(20, 40)]),
    "first segment": (lambda p: segment(p, 0).unlink(), "http-0: a segment is missing", "missing", [(0, 20)]),
    "middle segment": (lambda p: segment(p, 1).unlink(), "http-0: a segment is missing", "missing", [(20, 40)]),
    "last segment": (lambda p: segment(p, -1).unlink(), "0060.log: ends early", "early", [(80, 100)]),
    "all segments": (
        delete,
        "http-0: ends early",
        "early",
        [(0, 100)],
    ),
    "snapshot": (lambda p: (p / snapshot.SNAPSHOT).write_bytes(b"?"), "producers.snapshot", "checksum", []),
    "meta": (lambda p: (p.parent / "meta.json").write_bytes(b"?"), "meta.json: is damaged", "restore it", []),
    "no meta": (lambda p: (p.parent / "meta.json").unlink(), "meta.json: missing", "missing", []),
    "checkpoint": (lambda p: (p / files.CHECKPOINT).write_bytes(b"?"), "checkpoint: missing or damaged", "known", []),
}


@pytest.mark.parametrize("what", HARM)
def test_damage_is_named_and_everything_else_is_read_by_whoever_skips_it(partition: Path, what: str) -> None:
    harm, place, reason, lacking = HARM[what]
    harm(partition)
    with pytest.raises(LogDamaged) as stopped:
        list(read_records(partition.parent, TOPIC, from_offset=60 if what == "last segment" else 0))
    assert place in str(stopped.value)
    assert reason in str(stopped.value)
    gone = {offset for since, until in [*lacking, UNREADABLE] for offset in range(since, until)}
    skip = Skip()
    found = list(read_records(partition.parent, TOPIC, on_damage=skip))
    assert [record.offset for record in found] == [offset for offset in range(100) if offset not in gone]
    assert all(record.value == values(1, record.offset)[0] for record in found)
    assert skip.count == (1 if what == "all segments" else 2)


async def test_what_was_set_aside_stays_named(partition: Path) -> None:
    flip(segment(partition, 4), 100)
    sink = LogSink(sink_settings.LogSink(directory=partition.parent, max_segment_bytes=500))
    await sink.start()
    await sink.close()
    (aside,) = partition.glob("*.damaged")
    with pytest.raises(LogDamaged, match=rf"set aside in {aside.name} \(offsets 80 to 89\)"):
        list(read_records(partition.parent, TOPIC, from_offset=60))
    assert [record.offset for record in read_records(partition.parent, TOPIC, from_offset=90)] == list(range(90, 100))


def test_records_that_nobody_can_read_are_named_and_nothing_of_their_batch_is_printed(partition: Path) -> None:
    reading = read_records(partition.parent, TOPIC)
    assert [next(reading).offset for _ in range(50)] == list(range(50))
    with pytest.raises(LogDamaged, match=r"0040\.log at byte \d+: the records of a batch cannot be read.*50 to 59"):
        next(reading)
    assert len(list(read_records(partition.parent, TOPIC, from_offset=60))) == 40


def test_damage_before_what_is_asked_for_stops_nobody(partition: Path) -> None:
    flip(segment(partition, 1), 100)
    segment(partition, 0).unlink()
    assert [record.offset for record in read_records(partition.parent, TOPIC, from_offset=60)] == list(range(60, 100))


async def test_a_partition_that_is_missing_is_named(tmp_path: Path) -> None:
    sink = LogSink(sink_settings.LogSink(directory=tmp_path, partition_count=2))
    await sink.start()
    await sink.topic(TOPIC)
    await sink.close()
    gone = tmp_path / f"{TOPIC}-1"
    for path in gone.iterdir():
        path.unlink()
    gone.rmdir()
    with pytest.raises(LogDamaged, match="http-1: missing"):
        list(read_records(tmp_path, TOPIC))
    assert list(read_records(tmp_path, TOPIC, partition=0)) == []


def test_a_log_whose_old_records_were_deleted_is_not_damaged(partition: Path) -> None:
    known: list[Damage] = []
    snapshot.write(partition, Snapshot(60))
    assert next(read_records(partition.parent, TOPIC, on_damage=known.append)).offset == 60
    segment(partition, 0).unlink()
    assert [record.offset for record in read_records(partition.parent, TOPIC)] == list(range(60, 100))
    assert known == []


async def test_a_reader_says_what_is_held(partition: Path) -> None:
    flip(segment(partition, 1), 100)
    assert await LogReader(partition.parent).held(TOPIC, 0) == Held(0, ((20, 30), UNREADABLE))
    snapshot.write(partition, Snapshot(40))
    assert await LogReader(partition.parent).held(TOPIC, 0) == Held(40, (UNREADABLE,))


def test_a_reader_that_follows_is_overtaken_by_deletion_without_damage(partition: Path) -> None:
    following = read_records(partition.parent, TOPIC, follow=True)
    assert [next(following).offset for _ in range(15)] == list(range(15))
    snapshot.write(partition, Snapshot(60))
    delete(partition, before=60)
    assert [next(following).offset for _ in range(5)] == list(range(15, 20)), "of the batch in hand"
    assert [next(following).offset for _ in range(40)] == list(range(60, 100))
