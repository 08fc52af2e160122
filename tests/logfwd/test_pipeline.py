"""A pipeline's bounds: what twins may keep, what stays in memory, and that a twin never holds up its original."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from logfwd.definition import SpoolLimits, Stream
from logfwd.pipeline import PAYLOADS_IN_MEMORY
from logfwd.sources.front import Front, Handle, Outcome
from logfwd.spool.backlog import Backlog
from logfwd.spool.notes import Notes
from logfwd.spool.rows import Run
from logfwd.spool.store import Spool
from tests.support.installation import eventually
from tests.support.pipelines import STREAM, pipeline_on, running
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


async def acknowledge_all(spool: Spool, backlog: Backlog) -> None:
    """As if a receiver had granted a run and stored everything."""
    notes, run = Notes(), backlog.head_run()
    assert run is not None
    backlog.grant(run, Run(run.number, "c", "topic", "id", 0, 1000, grant=b"g"), notes)
    backlog.stamp(run, notes)
    for row in list(backlog.rows):
        backlog.acknowledge(row, notes)
    await spool.commit(notes)


async def test_a_twin_keeps_within_its_own_budget_and_drops_its_oldest(tmp_path: Path) -> None:
    small = msgspec.structs.replace(TWIN, spool=SpoolLimits(max_spool_bytes=500))
    async with Spool(tmp_path / "s.spool") as spool:
        with Front().open("s") as handle:
            source = push(handle)
            async with pipeline_on(spool, source, twins=[small]) as pipeline, running(pipeline):
                await store(source, 20)
                original, twin = (sender.backlog for sender in pipeline.senders)
                assert len(original.rows) == 20
                assert 0 < twin.waiting_bytes <= 500
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
