"""What a crash leaves behind: a spool whose batches were sent, of which the sink has stored some."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from logfwd.backlog import Backlog, Row, Run
from logfwd.spool import Notes, Spool
from logreceiver.grants import Claim, Grants
from logreceiver.sinks import Kind, Sink
from streams import recordbatch
from streams.recordbatch import Codec
from tests.support.batches import values
from tests.support.tls import FORWARDER

RECORDS = 7
"""In each batch."""


@dataclass(frozen=True)
class Crash:
    """`acknowledged` batches, then `sent` ones without an answer, the first `stored` of which are in the sink."""

    sent: int
    stored: int
    acknowledged: int = 2
    acknowledgements_committed: bool = True
    event: str = "crash"

    @property
    def stream(self) -> str:
        committed = "committed" if self.acknowledgements_committed else "lost"
        return f"{self.event}-sent-{self.sent}-stored-{self.stored}-acknowledgements-{committed}"

    @property
    def records(self) -> list[bytes]:
        """What must be in the topic in the end."""
        return values(RECORDS * (self.acknowledged + self.sent))


async def leave_behind(crash: Crash, state_dir: Path, sink: Sink, grants: Grants) -> None:
    """Do what a forwarder and a receiver did before the crash; the stream's topic has its name."""
    async with Spool(state_dir / f"{crash.stream}.spool") as spool:
        backlog = spool.backlog(crash.stream, max_bytes=1 << 30, drops_oldest=False)
        await _seal(spool, backlog, crash.acknowledged + crash.sent)
        run = await _grant(spool, backlog, sink, grants)
        rows = list(backlog.rows)
        for row in rows[: crash.acknowledged + crash.stored]:
            await _store(spool, row, run, sink)
        for row in rows[: crash.acknowledged]:
            notes = Notes()
            backlog.acknowledge(row, notes)
            if crash.acknowledgements_committed:
                await spool.commit(notes)


async def _seal(spool: Spool, backlog: Backlog, count: int) -> None:
    for number in range(count):
        records = values(RECORDS, number * RECORDS)
        packed = recordbatch.pack(records, timestamp_ms=int(time.time() * 1000), codec=Codec.ZSTD)
        notes = Notes()
        blob = spool.blobs.add(packed.payload, notes)
        backlog.accept([packed], [blob], 0, 0.0, notes)
        await spool.commit(notes)


async def _grant(spool: Spool, backlog: Backlog, sink: Sink, grants: Grants) -> Run:
    run, topic = backlog.head_run(), await sink.topic(backlog.stream)
    assert run is not None
    producer_id = await sink.new_producer_id()
    grant = grants.sign(Claim(FORWARDER, backlog.stream, sink.cluster_id, topic.name, 0, producer_id))
    granted = Run(run.number, sink.cluster_id, topic.name, topic.topic_id, 0, producer_id, grant=grant)
    notes = Notes()
    backlog.grant(run, granted, notes)
    backlog.stamp(run, notes)
    await spool.commit(notes)
    return run


async def _store(spool: Spool, row: Row, run: Run, sink: Sink) -> None:
    assert row.base_sequence is not None
    stamped = recordbatch.stamp(
        await spool.payload(row),
        producer_id=run.producer_id,
        producer_epoch=run.producer_epoch,
        base_sequence=row.base_sequence,
    )
    outcome = await sink.produce(run.topic, run.partition, memoryview(stamped))
    assert outcome.kind is Kind.STORED
