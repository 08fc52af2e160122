"""A pipeline on a real spool, without receivers: what is committed stays there and can be read."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from logfwd.definition import BatchLimits, SpoolLimits, Stream
from logfwd.intake.threads import SealThreads
from logfwd.links.sender import Connect
from logfwd.metrics import ForwarderMetrics
from logfwd.pipeline import Pipeline
from logfwd.sources import Source
from logfwd.spool.backlog import Backlog
from logfwd.spool.notes import Notes
from logfwd.spool.rows import ROW_BYTES, Run
from logfwd.spool.store import Spool
from streams.errors import LinkError
from streams.records import batch as recordbatch
from streams.records.batch import Packed
from streams.security.transport import Link
from streams.telemetry.metrics import CollectorRegistry


def nowhere(_: Stream) -> Connect:
    """No receiver can be reached."""

    async def make_link() -> Link:
        raise LinkError("no receiver here")

    return make_link


STREAM = Stream(name="s", batch=BatchLimits(linger_seconds=0.02))


def each_alone(**spool: Any) -> Stream:
    """A stream that puts each block into a batch of its own."""
    limits = BatchLimits(max_batch_bytes=1, linger_seconds=60)
    return msgspec.structs.replace(STREAM, batch=limits, spool=SpoolLimits(**spool))


@contextlib.asynccontextmanager
async def pipeline_on(
    spool: Spool,
    source: Source,
    stream: Stream = STREAM,
    *,
    twins: Sequence[Stream] = (),
    connect: Callable[[Stream], Connect] = nowhere,
) -> AsyncIterator[Pipeline]:
    """A pipeline; the caller runs it."""
    with contextlib.closing(SealThreads()) as threads:
        yield Pipeline(
            stream,
            twins,
            source,
            spool,
            ForwarderMetrics(CollectorRegistry()),
            threads,
            connect,
            boot_id="boot",
            answer_timeout_seconds=60,
        )


@contextlib.asynccontextmanager
async def running(pipeline: Pipeline) -> AsyncIterator[asyncio.Task[None]]:
    """Runs it for the length of the block; an error of the pipeline is raised from the task alone."""
    task = asyncio.create_task(pipeline.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def a_moment() -> None:
    """Time for everything to happen that wrongly would."""
    await asyncio.sleep(0.1)


async def records_in(path: Path, stream: str = "s") -> list[bytes]:
    """Every record of a stream that waits in a spool which nobody uses."""
    async with Spool(path) as spool:
        backlog = spool.backlog(stream, max_bytes=1 << 40, drops_oldest=False)
        return [
            bytes(record.value or b"")
            for row in backlog.rows
            for record in recordbatch.iterate(await spool.payload(row), max_bytes=1 << 26)
        ]


BATCH = Packed(b"x" * 1000, 1, 1000)


async def stamped(spool: Spool, backlog: Backlog, batches: int) -> None:
    """Batches of 1000 bytes that may have been sent, so that they can no longer be dropped."""
    notes = Notes()
    for _ in range(batches):
        blob = spool.blobs.add(BATCH.payload, notes)
        backlog.accept([BATCH], [blob], 0, 1.0, notes)
    run = backlog.head_run()
    assert run is not None
    backlog.grant(run, Run(run.number, "c", "topic", "id", 0, 1000, grant=b"g"), notes)
    backlog.stamp(run, notes)
    await spool.commit(notes)
    for row in backlog.rows:
        row.committed_at = 1.0


def dropping(size: int) -> Stream:
    return msgspec.structs.replace(STREAM, spool=SpoolLimits(max_spool_bytes=size, when_full="drop_oldest"))


DROPPING = dropping(3 * (len(BATCH.payload) + ROW_BYTES))
"""Has room for three batches of 1000 bytes; `stamped` fills it with what cannot be dropped."""


async def acknowledge_all(spool: Spool, backlog: Backlog) -> None:
    """As if a receiver had granted a run and stored everything."""
    notes, run = Notes(), backlog.head_run()
    assert run is not None
    backlog.grant(run, Run(run.number, "c", "topic", "id", 0, 1000, grant=b"g"), notes)
    backlog.stamp(run, notes)
    for row in list(backlog.rows):
        backlog.acknowledge(row, notes)
    await spool.commit(notes)
