"""Drafts whose portions are sealed while the rest is gathered: committed whole, or not at all."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from logfwd.definition import BatchLimits
from logfwd.intake.batcher import PORTION_BYTES
from logfwd.intake.seal import Sealed
from logfwd.pipeline import PAYLOAD_BYTES_IN_MEMORY
from logfwd.sources.position import Block
from logfwd.spool.store import Spool
from tests.support.given import Given, at, record
from tests.support.installation import eventually
from tests.support.pipelines import STREAM, a_moment, acknowledge_all, pipeline_on, records_in, running

LARGE = BatchLimits(max_batch_bytes=8 * PORTION_BYTES, max_record_bytes=2 * PORTION_BYTES, linger_seconds=60)
LINGERING = msgspec.structs.replace(STREAM, batch=LARGE)


async def test_of_a_draft_that_was_not_ended_nothing_is_stored_and_no_position(tmp_path: Path) -> None:
    source, path, portions = Given(), tmp_path / "s.spool", list[Sealed]()
    large = b'{"x":"%b"}\n' % (b"x" * PORTION_BYTES)
    async with Spool(path) as spool, pipeline_on(spool, source, LINGERING) as pipeline, running(pipeline):
        source.give(1, position=1)  # sealed at once; what follows lingers
        await eventually(lambda: source.durable)
        source.queue.put_nowait(Block(large, 2, positions={"own": at(2)}))
        await eventually(lambda: pipeline._gathered is not None and pipeline._gathered.last is not None)
        gathered = pipeline._gathered
        assert gathered is not None
        assert gathered.last is not None
        portions.append(await asyncio.wrap_future(gathered.last))
        await a_moment()
        assert len(pipeline.senders[0].backlog.rows) == 1
    assert portions[0].of_blocks == [(1, 0)], "it was compressed already"
    assert await records_in(path) == [record(1)]
    async with Spool(path) as spool:
        assert spool.positions == {"own": at(1)}


async def test_the_end_of_a_draft_commits_all_its_portions_at_once(tmp_path: Path) -> None:
    source, path = Given(), tmp_path / "s.spool"
    lines = [b'{"n":%d,"x":"%b"}' % (n, b"x" * PORTION_BYTES) for n in range(3)]
    async with Spool(path) as spool, pipeline_on(spool, source, LINGERING) as pipeline, running(pipeline) as task:
        source.give(1, position=1)
        await eventually(lambda: source.durable)
        for number, line in enumerate(lines, 2):
            source.queue.put_nowait(Block(line + b"\n", number, positions={"own": at(number)}))
        source.queue.put_nowait(None)
        await eventually(lambda: len(source.durable) == 2)
        rows = pipeline.senders[0].backlog.rows
        assert [row.record_count for row in rows] == [1, 3]
        await acknowledge_all(spool, pipeline.senders[0].backlog)
        await eventually(task.done)
    assert source.durable == [{"own": at(1)}, {"own": at(4)}]


async def test_payloads_of_large_batches_do_not_stay_in_memory(tmp_path: Path) -> None:
    source, plain = Given(), msgspec.structs.replace(STREAM, codec="none")
    line = b'{"x":"%b"}\n' % (b"x" * 500_000)
    async with Spool(tmp_path / "s.spool") as spool, pipeline_on(spool, source, plain) as pipeline, running(pipeline):
        rows = pipeline.senders[0].backlog.rows
        for number in range(8):
            source.queue.put_nowait(Block(line, number, positions={"own": at(number)}))
        await eventually(lambda: sum(row.record_count for row in rows) == 8 and rows[-1].committed)
        kept = sum(row.size for row in rows if row.payload is not None)
        assert 4 * len(line) <= kept <= PAYLOAD_BYTES_IN_MEMORY + 2 * len(line)


async def test_a_draft_without_records_moves_the_position(tmp_path: Path) -> None:
    source, path = Given(), tmp_path / "s.spool"
    async with Spool(path) as spool, pipeline_on(spool, source, STREAM) as pipeline, running(pipeline):
        source.queue.put_nowait(Block(b"\n\n", 1, positions={"own": at(2)}))
        await eventually(lambda: source.durable)
        source.give(1, position=3)
        await eventually(lambda: len(source.durable) == 2)
    assert await records_in(path) == [record(1)]
