"""When a pipeline asks its source for blocks: ahead while permits to read are left, and never for a full spool."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from logfwd.intake.seal import Sealed, Sealer
from logfwd.sources import permits
from logfwd.spool.store import Spool
from tests.support.given import Given
from tests.support.installation import eventually
from tests.support.patience import PATIENCE_SECONDS
from tests.support.pipelines import a_moment, each_alone, pipeline_on, running


@pytest.fixture(autouse=True)
def permits_do_not_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(permits, "LONGEST_SECONDS", 3600.0)


@pytest.mark.parametrize(("readers", "left"), [(0, 1), (1, 1), (2, 2)])
async def test_a_block_is_asked_for_ahead_unless_other_streams_have_all_permits_to_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, readers: int, left: int
) -> None:
    seal, may_seal = Sealer._seal, threading.Event()

    def held(sealer: Sealer, *portion: Any) -> Sealed:
        assert may_seal.wait(PATIENCE_SECONDS)
        return seal(sealer, *portion)

    monkeypatch.setattr(Sealer, "_seal", held)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    source = Given()
    async with (
        Spool(tmp_path / "s.spool") as spool,
        pipeline_on(spool, source, each_alone()) as pipeline,
        running(pipeline),
    ):
        for _ in range(readers):
            await pipeline._threads.permits.for_a_stream().take()
        turns = pipeline._threads._turns._value
        for number in range(turns + 3):
            source.give(number)
        await eventually(lambda: source.queue.qsize() == left)
        await a_moment()
        assert source.queue.qsize() == left, "what is being sealed is taken, one that waits, and perhaps one ahead"
        may_seal.set()
        await eventually(lambda: source.queue.qsize() == 0)


async def test_a_pipeline_with_a_full_spool_has_no_permit_to_read(tmp_path: Path) -> None:
    source = Given()
    async with (
        Spool(tmp_path / "s.spool") as spool,
        pipeline_on(spool, source, each_alone(max_spool_bytes=2000)) as pipeline,
        running(pipeline),
    ):
        await pipeline._permit.take()
        for number in range(30):
            source.give(number)
        await eventually(lambda: pipeline.troubles().keys() == {"spool"})
        again = asyncio.create_task(pipeline._permit.take())
        await a_moment()
        assert not again.done()
        pipeline.senders[0].backlog.max_bytes = 1 << 20
        await asyncio.wait_for(again, PATIENCE_SECONDS)
