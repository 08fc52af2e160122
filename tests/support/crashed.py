"""What a crash leaves behind: a spool whose batches were sent, of which the sink has stored some."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

from logfwd.backlog import Backlog, Row, Run
from logfwd.spool import Notes, Spool
from logreceiver.grants import Claim, Grants
from logreceiver.sinks import Kind, Sink
from streams import recordbatch
from streams.errors import SinkUnavailable
from streams.recordbatch import Codec
from tests.support.batches import values
from tests.support.sinks import PATIENCE_SECONDS, eventually
from tests.support.tls import FORWARDER

RECORDS = 7
"""In each batch."""


@dataclass(frozen=True)
class Crash:
    """`acknowledged` batches, then `sent` ones without an answer, the first `stored` of which are in the sink.

    They were read `age_hours` before.
    """

    sent: int
    stored: int
    acknowledged: int = 2
    acknowledgements_committed: bool = True
    event: str = "crash"
    age_hours: float = 0.0

    @property
    def stream(self) -> str:
        committed = "committed" if self.acknowledgements_committed else "lost"
        return f"{self.event}-sent-{self.sent}-stored-{self.stored}-acknowledgements-{committed}"

    @property
    def records(self) -> list[bytes]:
        """What must be in the topic in the end."""
        return values(RECORDS * (self.acknowledged + self.sent))


async def leave_behind(
    crash: Crash, state_dir: Path, sink: Sink, grants: Grants, *, reset: bool = False
) -> list[memoryview]:
    """Do what a forwarder and a receiver did before the crash; the stream's topic has its name.

    Returns all batches as they were, or would have been, sent. `reset`: a reset was committed, and nothing sent since.
    """
    async with Spool(state_dir / f"{crash.stream}.spool") as spool:
        backlog = spool.backlog(crash.stream, max_bytes=1 << 30, drops_oldest=False)
        await _seal(spool, backlog, crash)
        run = await _grant(spool, backlog, sink, grants)
        rows = list(backlog.rows)
        batches = [await _stamped(spool, row, run) for row in rows]
        for batch in batches[: crash.acknowledged + crash.stored]:
            await _store(sink, run, batch)
        for row in rows[: crash.acknowledged]:
            notes = Notes()
            backlog.acknowledge(row, notes)
            if crash.acknowledgements_committed:
                await spool.commit(notes)
        if reset:
            notes = Notes()
            backlog.reset(run, notes, new_producer=False)
            await spool.commit(notes)
    return batches


async def _seal(spool: Spool, backlog: Backlog, crash: Crash) -> None:
    read_at_ms = int((time.time() - 3600 * crash.age_hours) * 1000)
    for number in range(crash.acknowledged + crash.sent):
        packed = recordbatch.pack(values(RECORDS, number * RECORDS), timestamp_ms=read_at_ms, codec=Codec.ZSTD)
        notes = Notes()
        blob = spool.blobs.add(packed.payload, notes)
        backlog.accept([packed], [blob], 0, 0.0, notes)
        await spool.commit(notes)


async def _grant(spool: Spool, backlog: Backlog, sink: Sink, grants: Grants) -> Run:
    run, topic = backlog.head_run(), await eventually(lambda: sink.topic(backlog.stream))
    assert run is not None
    producer_id = await sink.new_producer_id()
    grant = grants.sign(Claim(FORWARDER, backlog.stream, sink.cluster_id, topic.name, 0, producer_id))
    granted = Run(run.number, sink.cluster_id, topic.name, topic.topic_id, 0, producer_id, grant=grant)
    notes = Notes()
    backlog.grant(run, granted, notes)
    backlog.stamp(run, notes)
    await spool.commit(notes)
    return run


async def _store(sink: Sink, run: Run, batch: memoryview) -> None:
    """A topic that was just made may have no leader yet."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await sink.produce(run.topic, run.partition, batch)).kind is not Kind.STORED:
            await asyncio.sleep(0.05)
            with contextlib.suppress(SinkUnavailable):
                await sink.topic(run.topic)


async def _stamped(spool: Spool, row: Row, run: Run) -> memoryview:
    assert row.base_sequence is not None
    stamped = recordbatch.stamp(
        await spool.payload(row),
        producer_id=run.producer_id,
        producer_epoch=run.producer_epoch,
        base_sequence=row.base_sequence,
        now_ms=int(time.time() * 1000),
    )
    return memoryview(stamped)
