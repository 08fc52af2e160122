"""What a pipeline has handed on it keeps no longer: blocks and batches are most of a forwarder's memory."""

from __future__ import annotations

import gc
from pathlib import Path

import msgspec
import pytest

from logfwd.definition import BatchLimits
from logfwd.sources.position import Block
from logfwd.spool.rows import Row
from logfwd.spool.store import Spool
from streams.records.batch import Packed
from tests.support.given import Gate, Given
from tests.support.installation import eventually
from tests.support.pipelines import STREAM, a_moment, acknowledge_all, pipeline_on, running

EACH_ALONE = msgspec.structs.replace(STREAM, batch=BatchLimits(max_batch_bytes=1, linger_seconds=60))
"""Each block in a batch of its own."""


def held() -> list[object]:
    """Batches and blocks that anything refers to."""
    return [each for each in gc.get_objects() if isinstance(each, Packed | Row | Block)]


async def test_a_pipeline_that_waits_for_its_source_keeps_no_batch(tmp_path: Path) -> None:
    source, others = Given(), set(map(id, held()))
    async with Spool(tmp_path / "s.spool") as spool, pipeline_on(spool, source) as pipeline, running(pipeline):
        source.give(1, position=1)
        await eventually(lambda: bool(source.durable))
        await acknowledge_all(spool, pipeline.senders[0].backlog)
        await a_moment()
        assert [each for each in held() if id(each) not in others] == []


async def test_a_pipeline_that_waits_for_its_spool_keeps_no_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    source, others = Given(), set(map(id, held()))
    async with (
        Spool(tmp_path / "s.spool") as spool,
        pipeline_on(spool, source, EACH_ALONE) as pipeline,
        running(pipeline),
    ):
        for _ in range(2):
            await pipeline._threads.permits.for_a_stream().take()
        gate.open.clear()
        for number in range(30):
            source.give(number, position=number)
        try:
            await eventually(pipeline._sealing.full)
            await a_moment()
            others |= set(map(id, source.queue._queue))  # type: ignore[attr-defined]
            assert not source.queue.empty()
            assert [each for each in held() if isinstance(each, Block) and id(each) not in others] == []
        finally:
            gate.open.set()
