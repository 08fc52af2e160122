"""Receipts: a client that waits for a block hears that it is durable, or certainly not stored, and not too soon."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import msgspec
import pytest

from logfwd.definition import BatchLimits, Stream
from logfwd.intake.batcher import Batcher, Portion
from logfwd.pipeline import Pipeline
from logfwd.spool.notes import Notes
from logfwd.spool.store import Spool
from streams.errors import PipelineError, SpoolError, SpoolFull
from tests.support.given import Gate, Given, at, block, record
from tests.support.installation import eventually
from tests.support.pipelines import DROPPING, STREAM, a_moment, dropping, pipeline_on, records_in, running, stamped


class Heard:
    """A receipt that notes each call."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.error: PipelineError | None = None

    def done(self) -> None:
        self.words.append("done")

    def failed(self, error: PipelineError) -> None:
        self.words.append("failed")
        self.error = error

    def unknown(self) -> None:
        self.words.append("unknown")


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate(monkeypatch)
    yield gate
    gate.open.set()


def lingering(seconds: float) -> Stream:
    return msgspec.structs.replace(STREAM, batch=BatchLimits(linger_seconds=seconds))


# -- drafts ------------------------------------------------------------------------------------------------------


def test_a_block_that_somebody_waits_for_is_never_cut() -> None:
    batcher, receipt = Batcher(BatchLimits(max_batch_bytes=20)), Heard()
    assert batcher.add(block(1), 0.0) == []
    (first, second) = batcher.add(block(*range(10, 20), receipt=receipt), 0.0)
    assert [len(first.blocks), len(second.blocks)] == [1, 1]
    assert second.byte_count == 90
    ((index, waiting),) = second.awaited()
    assert (index, waiting.receipt, waiting.data) == (0, receipt, b""), "its bytes can go before the receipt"
    assert first.awaited() == []


def test_a_block_with_positions_of_its_own_is_never_cut_and_its_last_positions_count() -> None:
    batcher = Batcher(BatchLimits(max_batch_bytes=20))
    (draft,) = batcher.add(block(*range(10, 20), position=7), 0.0)
    assert draft.positions() == {"own": at(7)}
    batcher = Batcher(BatchLimits())
    for position in (1, 2):
        batcher.add(block(1, position=position), 0.0)
    last = batcher.flush(0.0)
    assert last is not None
    assert last.positions() == {"own": at(2)}


def test_positions_with_a_receipt_are_left_to_the_pipeline() -> None:
    draft = Portion()
    draft.append(block(1, receipt=Heard(), position=1))
    assert draft.positions() == {}


# -- through a pipeline --------------------------------------------------------------------------------------------


async def test_a_receipt_is_done_when_the_commit_is_and_not_before(tmp_path: Path, gate: Gate) -> None:
    source, receipt, path = Given(), Heard(), tmp_path / "s.spool"
    async with Spool(path) as spool, pipeline_on(spool, source) as pipeline, running(pipeline):
        gate.open.clear()
        source.give(1, 2, receipt=receipt, position=2)
        await eventually(lambda: pipeline.senders[0].backlog.rows)
        await a_moment()
        assert receipt.words == []
        gate.open.set()
        await eventually(lambda: receipt.words)
        assert receipt.words == ["done"]
    assert await records_in(path) == [record(1), record(2)]
    async with Spool(path) as spool:
        assert spool.positions == {"own": at(2)}


async def test_after_a_failed_commit_a_receipt_is_neither_done_nor_failed(tmp_path: Path, gate: Gate) -> None:
    source, receipt, path = Given(), Heard(), tmp_path / "s.spool"
    async with Spool(path) as spool, pipeline_on(spool, source) as pipeline, running(pipeline) as task:
        gate.fails = True
        source.give(1, receipt=receipt, position=1)
        await asyncio.wait({task})
        assert isinstance(task.exception(), SpoolError)
        gate.fails = False
    assert receipt.words == []


async def test_a_lone_block_that_somebody_waits_for_does_not_linger(tmp_path: Path) -> None:
    source, receipt, path = Given(), Heard(), tmp_path / "s.spool"
    async with (
        Spool(path) as spool,
        pipeline_on(spool, source, lingering(60)) as pipeline,
        running(pipeline),
    ):
        source.give(1, receipt=receipt)
        await eventually(lambda: receipt.words == ["done"])
        source.give(2)
        await a_moment()
        assert len(pipeline.senders[0].backlog.rows) == 1, "nobody waits for this one"
        source.give(3, receipt=receipt)
        await eventually(lambda: receipt.words == ["done"] * 2)
        assert [row.record_count for row in pipeline.senders[0].backlog.rows] == [1, 2]


async def test_while_a_commit_is_under_way_what_comes_is_gathered_into_one_batch(tmp_path: Path, gate: Gate) -> None:
    source, receipts, path = Given(), [Heard() for _ in range(11)], tmp_path / "s.spool"
    async with (
        Spool(path) as spool,
        pipeline_on(spool, source, lingering(60)) as pipeline,
        running(pipeline),
    ):
        rows = pipeline.senders[0].backlog.rows
        gate.open.clear()
        source.give(0, receipt=receipts[0])
        await eventually(lambda: rows)
        for number in range(1, 11):
            source.give(number, receipt=receipts[number])
            await asyncio.sleep(0)
        await eventually(source.queue.empty)
        await a_moment()
        assert len(rows) == 1
        gate.open.set()
        await eventually(lambda: all(receipt.words == ["done"] for receipt in receipts))
        assert [row.record_count for row in rows] == [1, 10]


async def test_linger_is_the_longest_that_it_gathers(tmp_path: Path, gate: Gate) -> None:
    source, path = Given(), tmp_path / "s.spool"
    async with (
        Spool(path) as spool,
        pipeline_on(spool, source, lingering(0.05)) as pipeline,
        running(pipeline),
    ):
        rows = pipeline.senders[0].backlog.rows
        gate.open.clear()
        for number in range(2):
            source.give(number, receipt=Heard())
            await eventually(lambda number=number: len(rows) == number + 1)  # type: ignore[misc]
        gate.open.set()


# -- refusals ------------------------------------------------------------------------------------------------------


TWIN = Stream(name="twin", mirror_of="s")


@contextlib.asynccontextmanager
async def full(path: Path, source: Given) -> AsyncGenerator[tuple[Spool, Pipeline], None]:
    """A pipeline that drops its oldest batches, and has none that it may drop."""
    async with (
        Spool(path) as spool,
        pipeline_on(spool, source, DROPPING, twins=[TWIN]) as pipeline,
        running(pipeline),
    ):
        await stamped(spool, pipeline.senders[0].backlog, 3)
        yield spool, pipeline


async def test_what_cannot_be_kept_is_refused_whole_with_its_positions_and_for_the_twin_too(tmp_path: Path) -> None:
    source, receipt, path = Given(), Heard(), tmp_path / "s.spool"
    async with full(path, source) as (_, pipeline):
        original, twin = (sender.backlog for sender in pipeline.senders)
        source.give(1, receipt=receipt, position=1)
        await eventually(lambda: receipt.words == ["failed"])
        assert isinstance(receipt.error, SpoolFull)
        assert (len(original.rows), original.totals.accepted, original.totals.dropped) == (3, 3, 0)
        assert (len(twin.rows), twin.totals.accepted) == (0, 0), "it will come again, and must not be there twice"
    async with Spool(path) as spool:
        assert spool.positions == {}


async def test_a_source_without_receipts_goes_on_when_its_newest_batch_is_dropped(tmp_path: Path) -> None:
    source, path = Given(), tmp_path / "s.spool"
    async with full(path, source) as (_, pipeline):
        totals = pipeline.senders[0].backlog.totals
        source.give(1, position=1)
        await eventually(lambda: totals.dropped == 1)
        assert totals.accepted == 4
    async with Spool(path) as spool:
        assert spool.positions == {"own": at(1)}


async def test_nothing_is_stored_of_a_request_after_a_part_that_was_refused(tmp_path: Path) -> None:
    source, request, other, path = Given(), Heard(), Heard(), tmp_path / "s.spool"
    async with full(path, source) as (spool, pipeline):
        backlog = pipeline.senders[0].backlog
        source.give(1, receipt=request, position=1)
        await eventually(lambda: request.words == ["failed"])
        notes = Notes()
        backlog.acknowledge(backlog.rows[1], notes)
        await spool.commit(notes)
        source.give(2, receipt=request, position=2)
        await eventually(lambda: request.words == ["failed"] * 2)
        source.give(3, receipt=other, position=3)
        await eventually(lambda: other.words == ["done"])
    async with Spool(path) as spool:
        assert spool.positions == {"own": at(3)}


async def test_later_drops_do_not_concern_a_client_and_old_batches_make_room(tmp_path: Path) -> None:
    source, first, second, path = Given(), Heard(), Heard(), tmp_path / "s.spool"
    async with Spool(path) as spool, pipeline_on(spool, source, dropping(100)) as pipeline, running(pipeline):
        source.give(1, receipt=first)
        await eventually(lambda: first.words)
        source.give(2, receipt=second)
        await eventually(lambda: second.words)
        assert (first.words, second.words) == (["done"], ["done"])
        assert pipeline.senders[0].backlog.totals.dropped == 1
    assert await records_in(path) == [record(2)]


# -- the end -------------------------------------------------------------------------------------------------------


async def test_what_a_source_still_has_when_it_is_stopped_is_sealed_and_answered(tmp_path: Path) -> None:
    source, receipt, path = Given(), Heard(), tmp_path / "s.spool"
    async with Spool(path) as spool, pipeline_on(spool, source, lingering(60)) as pipeline, running(pipeline):
        source.kept_back = [block(2, receipt=receipt), block(3, receipt=receipt)]
        source.give(1)
        await eventually(source.queue.empty)
        pipeline.stop_reading()
        await eventually(lambda: receipt.words == ["done", "done"])
    assert await records_in(path) == [record(1), record(2), record(3)]
