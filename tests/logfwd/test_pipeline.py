"""A pipeline between a source and a spool: the order of commits, its bounds, its end, and what its twins may do to it.

Receipts are in test_receipts.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import logfwd.pipeline as pipeline_module
from logfwd.definition import BatchLimits, SpoolLimits, Stream
from logfwd.intake.seal import Sealed, Sealer
from logfwd.links.sender import Sender
from logfwd.pipeline import PAYLOADS_IN_MEMORY
from logfwd.sources.front import Front, Handle, Outcome
from logfwd.sources.position import Block
from logfwd.spool.rows import ROW_BYTES
from logfwd.spool.store import Spool
from tests.support.given import Gate, Given, at, record
from tests.support.installation import eventually
from tests.support.patience import PATIENCE_SECONDS
from tests.support.pipelines import STREAM, a_moment, acknowledge_all, each_alone, pipeline_on, records_in, running
from tests.support.push_source import Push

TWIN = Stream(name="twin", mirror_of="s")


async def no_key(_: bytes) -> None:
    return None


def push(handle: Handle) -> Push:
    handle.start(lambda: 1 << 30, no_key)
    return Push(handle)


async def store(source: Push, batches: int) -> None:
    for number in range(batches):
        assert await source.send(b'{"n":%d}\n' % number) is Outcome.DONE


async def test_a_twin_keeps_within_its_own_budget_and_drops_its_oldest(tmp_path: Path) -> None:
    small = msgspec.structs.replace(TWIN, spool=SpoolLimits(max_spool_bytes=2000))
    async with Spool(tmp_path / "s.spool") as spool:
        with Front().open("s") as handle:
            source = push(handle)
            async with pipeline_on(spool, source, twins=[small]) as pipeline, running(pipeline):
                await store(source, 20)
                original, twin = (sender.backlog for sender in pipeline.senders)
                assert len(original.rows) == 20
                assert twin.rows
                assert twin.room_bytes >= -ROW_BYTES
                assert twin.totals.dropped == 20 - len(twin.rows)


async def test_payloads_of_a_long_backlog_do_not_stay_in_memory(tmp_path: Path) -> None:
    async with Spool(tmp_path / "s.spool") as spool:
        with Front().open("s") as handle:
            source = push(handle)
            async with pipeline_on(spool, source) as pipeline, running(pipeline):
                await store(source, 4 * PAYLOADS_IN_MEMORY)
                rows = pipeline.senders[0].backlog.rows
                assert len(rows) == 4 * PAYLOADS_IN_MEMORY
                assert sum(row.payload is not None for row in rows) <= PAYLOADS_IN_MEMORY


async def test_streams_share_the_room_for_payloads_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline_module, "ALL_PAYLOAD_BYTES_IN_MEMORY", 1 << 20)
    async with Spool(tmp_path / "s.spool") as spool, pipeline_on(spool, Given()) as pipeline:
        with contextlib.ExitStack() as others:
            found = []
            for streams in (1, 4):
                while pipeline._threads.streams < streams:
                    others.enter_context(pipeline._threads.for_a_stream())
                found.append(pipeline._most_payload_bytes)
        assert found == [1 << 20, 1 << 18]
        assert pipeline._threads.streams == 0


async def test_a_twin_without_a_link_does_not_hold_up_the_end(tmp_path: Path) -> None:
    async with Spool(tmp_path / "s.spool") as spool:
        with Front().open("s") as handle:
            source = push(handle)
            async with pipeline_on(spool, source, STREAM, twins=[TWIN]) as pipeline, running(pipeline) as task:
                await store(source, 3)
                original, twin = (sender.backlog for sender in pipeline.senders)
                pipeline.stop_reading()
                await asyncio.sleep(0.1)
                assert not task.done(), "the original is not acknowledged"
                await acknowledge_all(spool, original)
                await eventually(task.done)
                assert task.exception() is None
                assert len(twin.rows) == 3, "its batches stay in the spool"


# -- order ---------------------------------------------------------------------------------------------------------


def lingering(seconds: float) -> Stream:
    return msgspec.structs.replace(STREAM, batch=BatchLimits(linger_seconds=seconds))


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate(monkeypatch)
    yield gate
    gate.open.set()


async def test_batches_are_committed_in_the_order_they_were_cut_whichever_is_sealed_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seal, second_is_sealed = Sealer._seal, threading.Event()

    def out_of_order(sealer: Sealer, *portion: Any) -> Sealed:
        if sealer._packing._timestamp_ms == 1:
            assert second_is_sealed.wait(PATIENCE_SECONDS)
            return seal(sealer, *portion)
        sealed = seal(sealer, *portion)
        second_is_sealed.set()
        return sealed

    monkeypatch.setattr(Sealer, "_seal", out_of_order)
    source, path = Given(), tmp_path / "s.spool"
    async with Spool(path) as spool, pipeline_on(spool, source, each_alone()) as pipeline, running(pipeline):
        for number in (1, 2):
            data, positions = record(number) + b"\n", {"own": at(number)}
            source.queue.put_nowait(Block(data, number, positions=positions))
        await eventually(lambda: len(source.durable) == 2)
        assert source.durable == [{"own": at(1)}, {"own": at(2)}]
    assert await records_in(path) == [record(1), record(2)]
    async with Spool(path) as spool:
        assert spool.positions == {"own": at(2)}


async def test_before_the_commit_no_batch_may_be_sent_and_the_source_hears_nothing(tmp_path: Path, gate: Gate) -> None:
    source = Given()
    async with (
        Spool(tmp_path / "s.spool") as spool,
        pipeline_on(spool, source, each_alone()) as pipeline,
        running(pipeline),
    ):
        rows, wake = pipeline.senders[0].backlog.rows, pipeline.senders[0].wake
        gate.open.clear()
        source.give(1, position=1)
        await eventually(lambda: rows)
        wake.clear()
        await a_moment()
        assert (rows[0].committed, source.durable, wake.is_set()) == (False, [], False)
        gate.open.set()
        await eventually(lambda: source.durable)
        assert rows[0].committed


async def test_senders_take_turns_in_being_woken_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, woken = Given(), list[str]()
    async with (
        Spool(tmp_path / "s.spool") as spool,
        pipeline_on(spool, source, each_alone(), twins=[TWIN]) as pipeline,
        running(pipeline),
    ):
        for sender in pipeline.senders:
            monkeypatch.setattr(sender, "wake", Noted(woken, sender.stream.name))
        for number in range(3):
            source.give(number, position=number)
            await eventually(lambda number=number: len(source.durable) == number + 1)  # type: ignore[misc]
            await a_moment()
        assert woken[:6] == ["s", "twin", "twin", "s", "s", "twin"]


class Noted(asyncio.Event):
    """An event that notes when it is set."""

    def __init__(self, notes: list[str], name: str) -> None:
        super().__init__()
        self._notes, self._name = notes, name

    def set(self) -> None:
        self._notes.append(self._name)
        super().set()


# -- room ----------------------------------------------------------------------------------------------------------


async def test_a_full_spool_makes_the_source_wait_and_goes_on_with_the_room(tmp_path: Path) -> None:
    source, path = Given(), tmp_path / "s.spool"
    async with (
        Spool(path) as spool,
        pipeline_on(spool, source, each_alone(max_spool_bytes=2000)) as pipeline,
        running(pipeline),
    ):
        backlog = pipeline.senders[0].backlog
        for number in range(30):
            source.give(number, position=number)
        await eventually(lambda: backlog.rows and not backlog.has_room(backlog.rows[0].size))
        await a_moment()
        assert backlog.rows
        assert backlog.room_bytes >= -ROW_BYTES
        assert source.queue.qsize() >= 30 - len(backlog.rows) - 8, "it must not gather in memory"
        assert backlog.totals.dropped == 0
        backlog.max_bytes = 1 << 20
        await eventually(lambda: len(source.durable) == 30)
        assert len(backlog.rows) == 30


async def test_a_full_disk_makes_the_source_wait_whatever_the_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, has_room = Given(), False
    async with Spool(tmp_path / "s.spool") as spool:
        monkeypatch.setattr(spool, "has_disk_room", lambda: has_room)
        async with pipeline_on(spool, source, each_alone(when_full="drop_oldest")) as pipeline, running(pipeline):
            source.give(1, position=1)
            await a_moment()
            assert not pipeline.senders[0].backlog.totals.accepted
            assert pipeline.room_bytes() == 0
            has_room = True
            assert pipeline.room_bytes() == math.inf, "it drops its oldest"
            await eventually(lambda: source.durable)


async def test_a_batch_waits_for_a_link_that_keeps_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline_module, "KEEP_UP_SECONDS", 60)
    monkeypatch.setattr(Sender, "connected", True)
    source = Given()
    async with (
        Spool(tmp_path / "s.spool") as spool,
        pipeline_on(spool, source, each_alone()) as pipeline,
        running(pipeline),
    ):
        rows = pipeline.senders[0].backlog.rows
        for number in range(PAYLOADS_IN_MEMORY + 1):
            source.give(number)
        await eventually(lambda: len(rows) == PAYLOADS_IN_MEMORY)
        await a_moment()
        assert len(rows) == PAYLOADS_IN_MEMORY
        pipeline.senders[0].delivery.progress.set()
        await eventually(lambda: len(rows) == PAYLOADS_IN_MEMORY + 1)


# -- the end -------------------------------------------------------------------------------------------------------


async def test_when_a_source_has_ended_what_it_gave_is_sealed_and_waited_for(tmp_path: Path) -> None:
    source = Given()
    async with (
        Spool(tmp_path / "s.spool") as spool,
        pipeline_on(spool, source, lingering(60)) as pipeline,
        running(pipeline) as task,
    ):
        backlog = pipeline.senders[0].backlog
        source.give(1, 2)
        source.give(3)
        source.queue.put_nowait(None)
        await eventually(lambda: backlog.rows and backlog.rows[0].committed)
        assert [row.record_count for row in backlog.rows] == [3]
        await a_moment()
        assert not task.done(), "nothing is acknowledged"
        await acknowledge_all(spool, backlog)
        await eventually(task.done)
        assert task.exception() is None


async def test_after_a_stop_nothing_more_is_taken_from_the_source(tmp_path: Path) -> None:
    source, path = Given(), tmp_path / "s.spool"
    async with (
        Spool(path) as spool,
        pipeline_on(spool, source, each_alone()) as pipeline,
        running(pipeline) as task,
    ):
        backlog = pipeline.senders[0].backlog
        source.give(1, position=1)
        await eventually(lambda: source.durable)
        pipeline.stop_reading()
        await a_moment()
        source.give(2, position=2)
        await acknowledge_all(spool, backlog)
        await eventually(task.done)
        assert task.exception() is None
    assert source.queue.qsize() == 1
    async with Spool(path) as spool:
        assert spool.positions == {"own": at(1)}


async def test_the_end_waits_for_a_twin_that_has_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sender, "connected", property(lambda sender: sender.stream.mirror_of is not None))
    source = Given()
    async with (
        Spool(tmp_path / "s.spool") as spool,
        pipeline_on(spool, source, each_alone(), twins=[TWIN]) as pipeline,
        running(pipeline) as task,
    ):
        original, twin = (sender.backlog for sender in pipeline.senders)
        source.give(1, position=1)
        await eventually(lambda: source.durable)
        pipeline.stop_reading()
        await acknowledge_all(spool, original)
        await a_moment()
        assert not task.done()
        await acknowledge_all(spool, twin)
        await eventually(task.done)
        assert task.exception() is None
