"""What the embedded log takes: batches that can be read, few descriptors; and who may look at its files."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import stat
import threading
import time
from pathlib import Path

import pytest

from logreceiver.sinks import Kind, RunState
from logreceiver.sinks import settings as sink_settings
from logreceiver.sinks.log.partition import Partition
from logreceiver.sinks.log.sink import LogSink, read_records
from streams.errors import Code
from streams.records.batch import HEADER_BYTES, Codec
from tests.logreceiver.sinks.test_log_damage import TOPIC, opened, stored_values
from tests.streams.records.test_batch import rewritten
from tests.support.batches import batch, values
from tests.support.patience import PATIENCE_SECONDS

GOOD = bytes(batch(7, 10))
MOST = 2**31 - 1
FORGED = {
    "random bytes as zstd": rewritten(GOOD, body=random.Random(1).randbytes(3000), attributes=Codec.ZSTD),
    "count without records": rewritten(GOOD, record_count=MOST, last_offset_delta=MOST - 1),
    "more records than bytes": rewritten(GOOD, record_count=100_000, last_offset_delta=99_999),
    "fewer records than announced": rewritten(GOOD, record_count=11, last_offset_delta=10),
    "no records in what is not compressed": rewritten(GOOD, body=b"\xff" * 300, attributes=Codec.NONE),
    "negative sequence": rewritten(GOOD, base_sequence=-1),
    "negative epoch": rewritten(GOOD, producer_epoch=-1),
    "impossible time": rewritten(
        bytes(batch(7, 10, codec=Codec.NONE)),
        base_timestamp=2**63 - 1,
        body=b"\x0e\0\2\0\1\2x\0",
        record_count=1,
        last_offset_delta=0,
    ),
}


@pytest.mark.parametrize("name", FORGED)
async def test_a_batch_that_no_reader_could_pass_is_refused_as_an_invalid_record(tmp_path: Path, name: str) -> None:
    async with opened(tmp_path) as sink:
        assert (await sink.produce(TOPIC, 0, batch(8, 0))).kind is Kind.STORED
        refused = await sink.produce(TOPIC, 0, memoryview(FORGED[name]))
        assert (refused.kind, refused.code) == (Kind.REFUSED, Code.INVALID_RECORD)
        assert refused.text
        assert await sink.ask(TOPIC, 0, 7) is None
        assert (await sink.produce(TOPIC, 0, batch(8, 10))).base_offset == 10
    assert stored_values(tmp_path) == values(20)


async def test_a_repeat_is_recognised_whatever_the_log_takes_by_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch of an earlier version is there: to refuse it would make a forwarder set it aside."""
    made = memoryview(FORGED["fewer records than announced"])
    async with opened(tmp_path) as sink:
        with monkeypatch.context() as patch:
            patch.setattr("logreceiver.sinks.log.look.walk", lambda *_: None)
            assert (await sink.produce(TOPIC, 0, made)).kind is Kind.STORED
        assert (await sink.produce(TOPIC, 0, made)).kind is Kind.DUPLICATE


async def test_a_small_batch_does_not_overtake_a_large_one_that_is_still_looked_at(tmp_path: Path) -> None:
    first, second = batch(7, 0, records=200_000), batch(7, 200_000)
    async with opened(tmp_path) as sink:
        outcomes = await asyncio.gather(sink.produce(TOPIC, 0, first), sink.produce(TOPIC, 0, second))
    assert [(each.kind, each.base_offset) for each in outcomes] == [(Kind.STORED, 0), (Kind.STORED, 200_000)]


async def test_a_topic_that_takes_long_to_make_holds_up_no_batch_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on, real = threading.Event(), Partition.open

    def slow(partition: Partition) -> None:
        assert goes_on.wait(PATIENCE_SECONDS)
        real(partition)

    async with opened(tmp_path) as sink, asyncio.timeout(PATIENCE_SECONDS):
        monkeypatch.setattr(Partition, "open", slow)
        making = [asyncio.ensure_future(sink.topic("another")) for _ in range(2)]
        await asyncio.sleep(0.05)
        assert (await sink.produce(TOPIC, 0, batch(7, 0))).kind is Kind.STORED
        assert await sink.find("another") is None
        goes_on.set()
        first, second = await asyncio.gather(*making)
        assert first == second
        assert (await sink.produce("another", 0, batch(7, 0))).kind is Kind.STORED


async def test_topics_leave_the_disk_as_much_time_as_they_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began, ended, real = list[float](), list[float](), Partition.open

    def slow(partition: Partition) -> None:
        began.append(time.monotonic())
        time.sleep(0.05)
        real(partition)
        ended.append(time.monotonic())

    async with opened(tmp_path) as sink:
        monkeypatch.setattr(Partition, "open", slow)
        await asyncio.gather(*(sink.topic(f"new-{number}") for number in range(3)))
    assert all(after - before >= 0.05 for before, after in zip(ended, began[1:], strict=False))


FEW = 40


@pytest.fixture
def few_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sink takes FEW for the process's limit. The real one is left alone: other tests may still hold descriptors."""
    monkeypatch.setattr("streams.descriptors.limit", lambda: FEW)


def open_below(directory: Path) -> list[str]:
    """The files below a directory that this process has open."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return [path for path in found if path.startswith(f"{directory}/")]


@pytest.mark.usefixtures("few_descriptors")
async def test_more_partitions_than_descriptors_are_written_in_turn_and_opened_again(tmp_path: Path) -> None:
    topics = [f"t{number}" for number in range(25)]
    assert 2 * len(topics) > FEW
    for _ in range(2):
        sink = LogSink(sink_settings.LogSink(directory=tmp_path, max_segment_bytes=1000))
        await sink.start()
        for topic in topics:
            await sink.topic(topic)
            state = await sink.ask(topic, 0, 7)
            done = 0 if state is None else state.last_sequence + 1
            for number in range(2):
                assert (await sink.produce(topic, 0, batch(7, done + 10 * number))).kind is Kind.STORED
            assert len(open_below(tmp_path)) <= FEW // 2
        for topic in reversed(topics):
            assert (await sink.produce(topic, 0, batch(8, 0))).kind in (Kind.STORED, Kind.DUPLICATE)
        assert sink.health() == {}
        await sink.close()
    for topic in topics:
        assert len(list(read_records(tmp_path, topic))) == 50


@pytest.mark.usefixtures("few_descriptors")
async def test_a_segment_that_somebody_else_changed_while_it_was_closed_is_not_appended_to(tmp_path: Path) -> None:
    async with opened(tmp_path) as sink:
        assert (await sink.produce(TOPIC, 0, batch(7, 0))).kind is Kind.STORED
        for number in range(6):
            await sink.topic(f"t{number}")
        (path,) = (tmp_path / f"{TOPIC}-0").glob("*.log")
        whole = path.read_bytes()
        path.write_bytes(whole + b"foreign")
        answer = await sink.produce(TOPIC, 0, batch(7, 10))
        assert (answer.kind, answer.code) == (Kind.UNCERTAIN, Code.UNAVAILABLE)
        assert await sink.ask(TOPIC, 0, 7) == RunState(0, 9)
        assert (await sink.produce(TOPIC, 0, batch(7, 10))).base_offset == 10
        assert path.read_bytes()[: len(whole)] == whole
    assert stored_values(tmp_path) == values(20)


def modes(directory: Path) -> set[tuple[bool, int]]:
    return {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in (directory, *directory.rglob("*"))}


async def test_nobody_else_may_read_the_log_and_one_that_was_open_is_closed(tmp_path: Path) -> None:
    directory = tmp_path / "log"
    before = os.umask(0)
    try:
        for _ in range(2):
            async with opened(directory, max_segment_bytes=400) as sink:
                for number in range(6):
                    await sink.produce(TOPIC, 0, batch(7, 10 * number))
                await sink.new_producer_id()
            assert modes(directory) == {(True, 0o700), (False, 0o600)}
            for path in (directory, *directory.rglob("*")):
                path.chmod(0o755 if path.is_dir() else 0o644)
    finally:
        os.umask(before)


async def test_a_batch_is_set_aside_in_a_file_that_nobody_else_may_read(tmp_path: Path) -> None:
    async with opened(tmp_path) as sink:
        for number in range(3):
            await sink.produce(TOPIC, 0, batch(7, 10 * number))
    (path,) = (tmp_path / f"{TOPIC}-0").glob("*.log")
    data = bytearray(path.read_bytes())
    data[HEADER_BYTES + 10] ^= 1
    path.write_bytes(data)
    async with opened(tmp_path):
        (aside,) = path.parent.glob("*.damaged")
        assert {stat.S_IMODE(each.stat().st_mode) for each in (aside, path)} == {0o600}
