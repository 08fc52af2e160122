"""The embedded log on a bad day: torn, rotten, full or failing disks, crashes, a second process."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from logreceiver.sinks import Kind, Outcome, RunState
from logreceiver.sinks import settings as sink_settings
from logreceiver.sinks.log import files
from logreceiver.sinks.log import partition as log_partition
from logreceiver.sinks.log.damage import Skip
from logreceiver.sinks.log.sink import LogSink, read_records
from streams.errors import Code, ConfigError, SinkUnavailable
from streams.records.batch import parse_header
from tests.support.batches import batch, values

TOPIC = "http"


@asynccontextmanager
async def opened(directory: Path, *, max_segment_bytes: int = 1 << 20) -> AsyncIterator[LogSink]:
    sink = LogSink(sink_settings.LogSink(directory=directory, max_segment_bytes=max_segment_bytes))
    await sink.start()
    try:
        await sink.topic(TOPIC)
        yield sink
    finally:
        await sink.close()


async def append(sink: LogSink, count: int, *, producer_id: int = 7, first: int = 0) -> list[Outcome]:
    return [await sink.produce(TOPIC, 0, batch(producer_id, 10 * (first + number))) for number in range(count)]


def stored_values(directory: Path) -> list[bytes]:
    """What can be read behind all damage."""
    return [record.value or b"" for record in read_records(directory, TOPIC, on_damage=Skip())]


def only_segment(directory: Path) -> Path:
    [(_, path)] = files.segments(directory / f"{TOPIC}-0")
    return path


def set_aside(path: Path, position: int) -> Path:
    return path.with_suffix(f".{position}.damaged")


def positions(path: Path) -> list[int]:
    """Where the batches of a sound segment begin, and its end."""
    found, data = [0], path.read_bytes()
    while found[-1] < len(data):
        found.append(found[-1] + parse_header(data[found[-1] :]).size)
    return found


async def test_records_come_back_in_order_over_many_segments(tmp_path: Path) -> None:
    async with opened(tmp_path, max_segment_bytes=400) as sink:
        outcomes = await append(sink, 20)
    assert [outcome.base_offset for outcome in outcomes] == list(range(0, 200, 10))
    assert len(files.segments(tmp_path / f"{TOPIC}-0")) > 5
    assert stored_values(tmp_path) == values(200)
    assert [record.offset for record in read_records(tmp_path, TOPIC, from_offset=155)] == list(range(155, 200))


async def test_what_was_acknowledged_can_be_read_while_the_receiver_runs(tmp_path: Path) -> None:
    async with opened(tmp_path, max_segment_bytes=400) as sink:
        await append(sink, 3)
        following = read_records(tmp_path, TOPIC, follow=True)
        assert [next(following).value for _ in range(30)] == values(30)
        await append(sink, 5, first=3)
        assert [next(following).value for _ in range(50)] == values(50, 30)


async def test_bytes_after_the_checkpoint_are_not_read(tmp_path: Path) -> None:
    async with opened(tmp_path) as sink:
        await append(sink, 2)
    (tmp_path / f"{TOPIC}-0" / files.CHECKPOINT).write_bytes(files.pack_checkpoint(10))
    assert stored_values(tmp_path) == values(10)


def test_an_unknown_topic_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nosuch"):
        next(read_records(tmp_path, "nosuch"))


async def test_a_torn_tail_is_cut_only_beyond_the_checkpoint(tmp_path: Path) -> None:
    async with opened(tmp_path) as sink:
        await append(sink, 3)
    path = only_segment(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole + bytes(batch(7, 30))[:-5])
    async with opened(tmp_path) as sink:
        assert path.read_bytes() == whole
        assert await sink.ask(TOPIC, 0, 7) == RunState(0, 29)
        assert (await sink.produce(TOPIC, 0, batch(7, 30))).base_offset == 30
    assert stored_values(tmp_path) == values(40)


async def test_a_torn_batch_before_the_checkpoint_is_kept_aside_and_its_offsets_stay_used(tmp_path: Path) -> None:
    async with opened(tmp_path) as sink:
        await append(sink, 3)
    path = only_segment(tmp_path)
    whole, at = path.read_bytes(), positions(path)
    path.write_bytes(whole[:-5])
    async with opened(tmp_path) as sink:
        assert set_aside(path, at[2]).read_bytes() == whole[at[2] : -5]
        assert await sink.ask(TOPIC, 0, 7) == RunState(0, 19)
        assert (await sink.produce(TOPIC, 0, batch(7, 20))).base_offset == 30


async def test_a_corrupt_length_of_the_last_acknowledged_batch_is_not_a_torn_tail(tmp_path: Path) -> None:
    async with opened(tmp_path) as sink:
        await append(sink, 3)
    path = only_segment(tmp_path)
    data, at = bytearray(path.read_bytes()), positions(path)
    data[at[2] + 11] -= 20
    path.write_bytes(data)
    async with opened(tmp_path) as sink:
        assert set_aside(path, at[2]).read_bytes() == data[at[2] :]
        assert (await sink.produce(TOPIC, 0, batch(7, 20))).base_offset == 30


@pytest.mark.parametrize("byte", [3, 10, 16, 23], ids=["base offset", "length", "magic", "record delta"])
async def test_a_damaged_header_in_the_middle_is_set_aside_and_what_follows_stays(tmp_path: Path, byte: int) -> None:
    async with opened(tmp_path) as sink:
        await append(sink, 5)
    path = only_segment(tmp_path)
    data, at = bytearray(path.read_bytes()), positions(path)
    data[at[2] + byte] ^= 1
    path.write_bytes(data)
    async with opened(tmp_path) as sink:
        assert set_aside(path, at[2]).read_bytes() == data[at[2] : at[3]]
        assert await sink.ask(TOPIC, 0, 7) == RunState(0, 49)
        assert (await sink.produce(TOPIC, 0, batch(7, 50))).base_offset == 50
    assert stored_values(tmp_path) == values(20) + values(30, 30)


async def test_a_corrupt_length_in_an_older_segment_costs_no_other_batch(tmp_path: Path) -> None:
    async with opened(tmp_path, max_segment_bytes=1000) as sink:
        await append(sink, 12)
    path = files.segments(tmp_path / f"{TOPIC}-0")[0][1]
    data, at = bytearray(path.read_bytes()), positions(path)
    data[at[1] + 10] ^= 1
    path.write_bytes(data)
    async with opened(tmp_path) as sink:
        assert set_aside(path, at[1]).read_bytes() == data[at[1] : at[2]]
    assert stored_values(tmp_path) == values(10) + values(100, 20)


async def test_the_last_batch_leaps_over_no_offsets(tmp_path: Path) -> None:
    """The CRC does not cover offsets, and no batch follows that would contradict."""
    async with opened(tmp_path) as sink:
        await append(sink, 3)
    path = only_segment(tmp_path)
    whole, at = bytearray(path.read_bytes()), positions(path)
    whole[at[2]] ^= 0x40
    path.write_bytes(whole)
    assert stored_values(tmp_path) == values(20)
    async with opened(tmp_path) as sink:
        assert set_aside(path, at[2]).read_bytes() == whole[at[2] :]
        assert (await sink.produce(TOPIC, 0, batch(7, 20))).base_offset == 30
    assert stored_values(tmp_path) == [*values(20), *values(10, 20)]


async def test_a_batch_that_begins_at_the_checkpoint_stays_though_the_one_before_is_damaged(tmp_path: Path) -> None:
    async with opened(tmp_path) as sink:
        await append(sink, 3)
    path = only_segment(tmp_path)
    whole, at = bytearray(path.read_bytes()), positions(path)
    whole[at[2] - 1] ^= 0xFF
    path.write_bytes(whole)
    (tmp_path / f"{TOPIC}-0" / files.CHECKPOINT).write_bytes(files.pack_checkpoint(20))
    async with opened(tmp_path):
        assert stored_values(tmp_path) == [*values(10), *values(10, 20)]


async def test_what_was_written_but_never_synced_is_rewritten_before_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failed fsync the kernel marks pages clean, and would not write them again by itself."""
    async with opened(tmp_path) as sink:
        await append(sink, 3)
    path = only_segment(tmp_path)
    at = positions(path)
    (path.parent / files.CHECKPOINT).write_bytes(files.pack_checkpoint(10))
    written: list[tuple[int, int]] = []
    real = os.pwrite

    def noted(fd: int, data: bytes, position: int) -> int:
        if os.fstat(fd).st_ino == path.stat().st_ino:
            written.append((position, position + len(data)))
        return real(fd, data, position)

    monkeypatch.setattr(os, "pwrite", noted)
    async with opened(tmp_path) as sink:
        assert await sink.ask(TOPIC, 0, 7) == RunState(0, 29)
    assert written == [(at[1], at[3])]


async def test_a_changed_number_of_partitions_is_for_new_topics_only(tmp_path: Path) -> None:
    first = LogSink(sink_settings.LogSink(directory=tmp_path, partition_count=3))
    await first.start()
    await first.topic(TOPIC)
    assert (await first.produce(TOPIC, 2, batch(7, 0))).kind is Kind.STORED
    await first.close()
    async with opened(tmp_path) as sink:
        assert (await sink.topic(TOPIC)).partition_count == 3
        assert await sink.ask(TOPIC, 2, 7) == RunState(0, 9)
        assert (await sink.topic("other")).partition_count == 1


async def test_a_repair_that_a_crash_cut_short_is_done_again(tmp_path: Path) -> None:
    """The damaged batch is kept already, the segment without it half written."""
    async with opened(tmp_path) as sink:
        await append(sink, 5)
    path = only_segment(tmp_path)
    data, at = bytearray(path.read_bytes()), positions(path)
    data[at[2] + 16] ^= 1
    path.write_bytes(data)
    set_aside(path, at[2]).write_bytes(data[at[2] : at[3]])
    path.with_suffix(".tmp").write_bytes(data[: at[1]])
    async with opened(tmp_path) as sink:
        assert await sink.ask(TOPIC, 0, 7) == RunState(0, 49)
    assert stored_values(tmp_path) == values(20) + values(20, 30)


async def test_a_reader_skips_a_batch_with_a_damaged_payload(tmp_path: Path) -> None:
    async with opened(tmp_path) as sink:
        await append(sink, 3)
    path = only_segment(tmp_path)
    data, at = bytearray(path.read_bytes()), positions(path)
    data[at[1] + 70] ^= 1
    path.write_bytes(data)
    assert stored_values(tmp_path) == values(10) + values(10, 20)


async def test_without_a_checkpoint_sound_batches_after_damage_are_kept(tmp_path: Path) -> None:
    async with opened(tmp_path) as sink:
        await append(sink, 5)
    path = only_segment(tmp_path)
    data, at = bytearray(path.read_bytes()), positions(path)
    data[at[1] + 70] ^= 1
    path.write_bytes(data)
    (path.parent / files.CHECKPOINT).unlink()
    async with opened(tmp_path) as sink:
        assert await sink.ask(TOPIC, 0, 7) == RunState(0, 49)
    assert stored_values(tmp_path) == values(10) + values(30, 20)


async def test_a_second_process_is_refused_as_the_directory_is_taken(tmp_path: Path) -> None:
    async with opened(tmp_path):
        script = (
            "import asyncio, sys; from pathlib import Path; from logreceiver.sinks import settings\n"
            "from logreceiver.sinks.log.sink import LogSink\n"
            "asyncio.run(LogSink(settings.LogSink(directory=Path(sys.argv[1]))).start())"
        )
        ended = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", script, str(tmp_path)], capture_output=True, check=False
        )
        assert b"another receiver" in ended.stderr
        with pytest.raises(ConfigError, match="another receiver"):
            await LogSink(sink_settings.LogSink(directory=tmp_path)).start()
    async with opened(tmp_path):
        pass


async def test_ids_stay_the_same_over_restarts_and_producer_ids_never_come_twice(tmp_path: Path) -> None:
    async with opened(tmp_path) as sink:
        cluster_id, topic = sink.cluster_id, await sink.topic(TOPIC)
        granted = [await sink.new_producer_id() for _ in range(3)]
        await append(sink, 1, producer_id=90)
    async with opened(tmp_path) as sink:
        assert (sink.cluster_id, await sink.topic(TOPIC)) == (cluster_id, topic)
        granted += [await sink.new_producer_id() for _ in range(3)]
    assert len(set(granted)) == 6
    assert min(granted[3:]) > 90


@pytest.mark.parametrize("damage", [None, b"", b"many"])
async def test_without_their_count_producer_ids_jump_ahead_of_all_that_may_have_been_handed_out(
    tmp_path: Path, damage: bytes | None
) -> None:
    async with opened(tmp_path) as sink:
        granted = {await sink.new_producer_id() for _ in range(50)}
    path = tmp_path / "producer-ids"
    path.unlink() if damage is None else path.write_bytes(damage)
    async with opened(tmp_path) as sink:
        assert await sink.new_producer_id() > max(granted)


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b", "x" * 250])
async def test_a_name_that_kafka_would_refuse_creates_no_topic(tmp_path: Path, name: str) -> None:
    async with opened(tmp_path) as sink:
        with pytest.raises(SinkUnavailable) as caught:
            await sink.topic(name)
        assert caught.value.code is Code.TOPIC_MISSING


async def test_a_full_disk_refuses_and_goes_on_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as sink:
        await append(sink, 1)
        with monkeypatch.context() as patch:
            patch.setattr(os, "writev", _half_then_full(os.writev))
            refused = await sink.produce(TOPIC, 0, batch(7, 10))
        assert (refused.kind, refused.code) == (Kind.REFUSED, Code.UNAVAILABLE)
        assert "full" in refused.text
        assert "full" in sink.health()[f"{TOPIC}-0"]
        assert (await sink.produce(TOPIC, 0, batch(7, 10))).base_offset == 10
        assert sink.health() == {}
    assert stored_values(tmp_path) == values(20)


def _half_then_full(real: Callable[[int, list[memoryview]], int]) -> Callable[[int, list[memoryview]], int]:
    calls = iter([True])

    def writev(fd: int, parts: list[memoryview]) -> int:
        if next(calls, False):
            real(fd, [parts[0], parts[1][:9]])
        raise OSError(errno.ENOSPC, "No space left on device")

    return writev


async def test_after_a_failed_fsync_nothing_of_the_group_is_acknowledged_and_the_log_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    async with opened(tmp_path) as sink:
        await append(sink, 1)
        with monkeypatch.context() as patch:
            patch.setattr(log_partition, "_sync", broken)
            group = await asyncio.gather(
                sink.produce(TOPIC, 0, batch(7, 10)),
                sink.produce(TOPIC, 0, batch(8, 0)),
                sink.ask(TOPIC, 0, 7),
                return_exceptions=True,
            )
            assert isinstance(group[0], Outcome)
            assert group[0].kind is Kind.UNCERTAIN
            assert isinstance(group[2], SinkUnavailable) or group[2] == RunState(0, 9)
            assert all(not isinstance(answer, Outcome) or answer.kind is not Kind.STORED for answer in group)
            assert "Input/output" in sink.health()[f"{TOPIC}-0"]
        state = await sink.ask(TOPIC, 0, 7)
        assert state in (RunState(0, 9), RunState(0, 19))
        following = 20 if state == RunState(0, 19) else 10
        assert (await sink.produce(TOPIC, 0, batch(7, following))).kind is Kind.STORED
        assert sink.health() == {}


async def test_a_batch_is_called_refused_only_after_it_was_durably_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as sink:
        await append(sink, 1)
        durable, synced = only_segment(tmp_path).stat().st_size, []
        with monkeypatch.context() as patch:
            patch.setattr(os, "writev", _half_then_full(os.writev))
            patch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_size))
            refused = await sink.produce(TOPIC, 0, batch(7, 10))
        assert refused.kind is Kind.REFUSED
        assert synced == [durable], "the file was cut back, and then synced"


async def test_a_batch_that_cannot_be_taken_back_is_uncertain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    async with opened(tmp_path) as sink:
        await append(sink, 1)
        with monkeypatch.context() as patch:
            patch.setattr(os, "writev", _half_then_full(os.writev))
            patch.setattr(os, "fsync", broken)
            assert (await sink.produce(TOPIC, 0, batch(7, 10))).kind is Kind.UNCERTAIN
        assert (await sink.produce(TOPIC, 0, batch(7, 10))).base_offset == 10
    assert stored_values(tmp_path) == values(20)


async def test_a_segment_ends_before_its_offsets_outgrow_kafkas_indexes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_partition, "MAX_OFFSETS_PER_SEGMENT", 25)
    async with opened(tmp_path) as sink:
        await append(sink, 5)
    assert [base for base, _ in files.segments(tmp_path / f"{TOPIC}-0")] == [0, 20, 40]
    assert stored_values(tmp_path) == values(50)


async def test_many_sessions_share_one_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = 0

    def counted(fd: int) -> None:
        nonlocal synced
        synced += 1
        os.fdatasync(fd)

    async with opened(tmp_path) as sink:
        monkeypatch.setattr(log_partition, "_sync", counted)
        answers = await asyncio.gather(*(sink.produce(TOPIC, 0, batch(number, 0)) for number in range(50)))
        assert {answer.kind for answer in answers} == {Kind.STORED}
        assert synced < 25


@pytest.mark.parametrize("damage", [b"", b'{"cluster_id":"', b"\xff", b'{"cluster_id":"\xff","topics":{}}'])
async def test_a_damaged_meta_file_is_named_with_the_remedy(tmp_path: Path, damage: bytes) -> None:
    async with opened(tmp_path):
        pass
    (tmp_path / "meta.json").write_bytes(damage)
    with pytest.raises(ConfigError, match=r"meta\.json: is damaged"):
        async with opened(tmp_path):
            pass
