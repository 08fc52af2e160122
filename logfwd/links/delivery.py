"""Applies the receiver's answers to one stream's backlog and spool, across links. resume.py decides, this acts.

Every change is noted and committed before anything that depends on it is sent; only an ACK takes a batch out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import structlog

from logfwd.clocks import clock
from logfwd.definition import Stream
from logfwd.links.backoff import Backoff
from logfwd.links.failure import Failure
from logfwd.links.recoveries import Recoveries
from logfwd.links.resume import Answer, GoOn, Plan, Remedy, Reset, Stored
from logfwd.metrics import ForwarderMetrics
from logfwd.spool.backlog import Backlog
from logfwd.spool.letters import oldest
from logfwd.spool.notes import Notes
from logfwd.spool.rows import Row, Run
from logfwd.spool.store import Spool
from streams.errors import Code
from streams.records.batch import Packed, halves, parse_header, stamp
from streams.wire import messages as m

MOST_PATIENCE_SECONDS = 20.0


class Delivery:
    """One stream's way to the sink, over all its links."""

    def __init__(
        self,
        stream: Stream,
        backlog: Backlog,
        spool: Spool,
        metrics: ForwarderMetrics,
        *,
        boot_id: str,
        answer_timeout_seconds: float,
    ) -> None:
        self.stream = stream
        self.backlog = backlog
        self.metrics = metrics
        self.boot_id = boot_id
        self.forwarder_id = spool.forwarder_id
        self.answer_timeout_seconds = answer_timeout_seconds
        self.progress = asyncio.Event()
        """Set at every acknowledgement, for a pipeline that follows the pace of the link."""
        self.trouble = ""
        """Why a batch waits that should become a dead letter; empty while none does."""
        self.last_failure: Failure | None = None
        self.topic = ""
        """Where the receiver that welcomed the stream last writes it; empty before the first."""
        self.backoff = Backoff()
        """Pauses after refusals, over links; those after a lost link are the sender's."""
        self._behind: Row | None = None
        """A batch that is stored and is not taken again: until it is acknowledged, what is behind it is sent."""
        self._max_batch_bytes = 0
        """What the topic of the run takes that was asked for last; 0 if the receiver did not say."""
        self._spool = spool
        self._recoveries = Recoveries(backlog, produce_seconds=answer_timeout_seconds)
        name = stream.name  # looked up once: a look-up costs three times as much as an observation
        self._stages = {stage: metrics.batch_stage.labels(name, stage) for stage in ("queue", "wire", "sink")}
        self._duration = metrics.batch_duration.labels(name, stream.security)
        self._acknowledged = metrics.records.labels(name, "acknowledged")
        self.log = structlog.get_logger("logfwd.delivery").bind(stream=stream.name, mode=stream.security)
        for run in backlog.runs.values():  # an earlier process may have sent stamped batches: they can still arrive
            if any(True for _ in backlog.stamped(run)):
                self._recoveries.of(run).uncertain(clock())

    @property
    def patience_seconds(self) -> float:
        """How long a receiver may hold its answer to OPEN_RUN: well within the time limit of an answer."""
        return min(MOST_PATIENCE_SECONDS, self.answer_timeout_seconds / 3)

    def wake_by(self, wake: Callable[[], None]) -> None:
        """Set what is called when there are more batches to send than at the last look."""
        self._spool.on_read[self.stream.name] = wake

    def receiver_takes(self, seconds: float) -> None:
        """A receiver may go on with a batch for so long, though the link that brought it has ended."""
        self._recoveries.receiver_takes(seconds)

    # -- before sending ----------------------------------------------------------------------------------------

    def question(self, run: Run, patience_seconds: float) -> m.OpenRun:
        """What is stored of a run, or, of a new one, for a producer id in the partition of the runs before it."""
        patience_ms = int(patience_seconds * 1000)
        if not run.granted:
            return m.OpenRun(run.number, partition=self.backlog.partition(), patience_ms=patience_ms)
        stamp = (run.producer_id, run.producer_epoch, run.grant)
        return m.OpenRun(run.number, run.topic, run.partition, *stamp, patience_ms)

    async def plan(self, run: Run, welcome: m.Welcome, answer: m.Run) -> Plan:
        """How to go on with a run, given the receiver's answer; a new run takes the stamp that it was granted."""
        self._max_batch_bytes = answer.max_message_bytes
        if run.granted:
            known = Answer(
                answer.cluster_id or welcome.cluster_id, answer.topic_id, answer.stored_epoch, answer.stored_sequence
            )
            return self._follow(self._recoveries.plan(run, known, clock()))
        notes = Notes()
        granted = Run(
            run.number,
            answer.cluster_id or welcome.cluster_id,
            answer.topic,
            answer.topic_id,
            answer.partition,
            answer.producer_id,
            grant=answer.grant,
        )
        self.backlog.grant(run, granted, notes)
        self.backlog.forget_finished_runs(notes)
        await self._spool.commit(
            notes
        )  # before anything is sent: after a crash without the grant it would be stored twice
        return self._follow(self._recoveries.begin(run, clock()))

    def _follow(self, plan: Plan | Stored) -> Plan:
        self._behind = plan.behind if isinstance(plan, GoOn) else None
        if isinstance(plan, Stored):
            self._recoveries.acknowledged(plan.row)
            self._take_out(plan.row)
            return GoOn()
        return plan

    def not_granted(self, run: Run) -> Plan:
        """The receiver does not honour the run's grant."""
        return self._recoveries.of(run).not_granted(clock())

    async def reset(self, run: Run, plan: Reset) -> None:
        """Start a run's sequence over."""
        notes = Notes()
        uncertain = self.backlog.reset(run, notes, new_producer=plan.new_producer)
        await self._spool.commit(notes)  # before anything is sent under the next epoch
        self._recoveries.of(run).was_reset()
        self.metrics.run_resets.labels(self.stream.name, plan.reason).inc()
        self.log.error(
            "run reset",
            run=run.number,
            reason=plan.reason,
            batches_possibly_repeated=uncertain,
            new_producer=not run.granted,
        )

    def head_run(self) -> Run | None:
        """The run to ask for now; None if there is nothing to send, or if it is not in memory yet."""
        self._spool.raise_if_broken()  # else what cannot be read would be waited for
        run = self._recoveries.next_run()
        return run if run is not None and self.backlog.rows[0].committed else None  # nor may its run be on disk yet

    def _next(self, run: Run, in_flight: int) -> Row | None:
        """The next batch of a run. Those in flight are the first ones, or those behind a batch that is passed over."""
        if run is not self._recoveries.next_run():  # it has vouched for another, which is to be asked for now
            return None
        rows = self.backlog.rows
        at = in_flight + (0 if self._behind is None else rows.index(self._behind) + 1)
        return rows[at] if at < len(rows) and rows[at].run == run.number else None

    async def next_row(self, run: Run, in_flight: int) -> Row | None:
        """The next batch of a run that may be sent, stamped and committed; None if there is none now."""
        if (row := self._next(run, in_flight)) is None:
            return None
        if row.base_sequence is None and row.committed:
            notes = Notes()
            self.backlog.stamp(run, notes)
            await self._spool.commit(notes)
        # A row that was stamped when it was accepted may still be on its way to the disk: sent now, and lost there by a
        # crash, its sequences would be given to other records.
        return row if row.committed and row.base_sequence is not None else None

    async def split_overlong(self, run: Run, in_flight: Callable[[], int]) -> None:
        """Halve the next batch until the run's topic takes it, or it is a single record."""
        while self._max_batch_bytes > 0 and (row := self._next(run, in_flight())) is not None:
            if not row.committed or row.size <= self._max_batch_bytes or row.record_count == 1:
                return
            await self._split(row)

    async def stamped_payload(self, row: Row, run: Run, receiver_now_ms: int) -> bytearray:
        """A batch ready for the wire. BatchCorrupt if it was damaged on disk: it never gets a fresh CRC."""
        assert row.base_sequence is not None
        sealed_in_memory = row.payload is not None
        payload = await self._spool.payload(row)
        return stamp(
            payload,
            producer_id=run.producer_id,
            producer_epoch=run.producer_epoch,
            base_sequence=row.base_sequence,
            now_ms=receiver_now_ms,
            known_good=sealed_in_memory,
        )

    def must_send_alone(self, row: Row) -> bool:
        return self._recoveries.of_row(row).must_send_alone(row)

    # -- after sending -----------------------------------------------------------------------------------------

    def uncertain(self, row: Row) -> None:
        """A link was lost with this batch on it."""
        self._recoveries.of_row(row).uncertain(clock())

    def acknowledged(self, row: Row, ack: m.Ack, sent_at: float) -> None:
        """A batch is stored: observe it, and let it leave the spool."""
        self.backoff.reset()
        if not self._recoveries.acknowledged(row):
            return
        self._behind = None
        self._observe(row, ack, sent_at)
        self._take_out(row)

    def _take_out(self, row: Row) -> None:
        """A batch and all before it in its run leave the spool."""
        notes = Notes()
        leaving = self.backlog.acknowledge(row, notes)
        self.trouble = ""
        count = sum(done.record_count for done in leaving)
        self._acknowledged.inc(count)
        self._spool.ride_along(notes)  # not awaited: losing a deletion costs a question, never a record
        self.progress.set()

    def _observe(self, row: Row, ack: m.Ack, sent_at: float) -> None:
        now = clock()
        sink, queue = ack.sink_us / 1e6, ack.receive_to_sink_us / 1e6
        self._stages["sink"].observe(sink)
        self._stages["wire"].observe(max(now - sent_at - sink - queue, 0.0))
        if row.sealed_at is not None:
            self._duration.observe(now - row.sealed_at)
            self._stages["queue"].observe(max(sent_at - (row.committed_at or sent_at), 0.0))

    def failed(self, reason: str, detail: str) -> None:
        """Count what went wrong, and keep it for whoever asks."""
        self.metrics.link_failures.labels(self.stream.name, reason).inc()
        self.last_failure = Failure.now(reason, detail)

    async def refused(self, row: Row, nack: m.Nack, *, alone: bool) -> Remedy:
        """Deal with the first batch of a window that was not acknowledged; returns what the link has to do about it."""
        recovery, code = self._recoveries.of_row(row), Code.parse(nack.code)
        remedy = recovery.refused(
            row,
            code,
            permanent=nack.permanent,
            uncertain=nack.uncertain,
            alone=alone,
            now=clock(),
            stored_meanwhile=nack.stored_meanwhile,
        )
        self.log.warning(
            "batch refused",
            code=str(code),
            uncertain=nack.uncertain,
            remedy=remedy.value,
            records=row.record_count,
            detail=nack.text,
        )
        self.failed(str(code), nack.text)
        if remedy is Remedy.SPLIT:
            await self._split(row)
        elif remedy is Remedy.DEAD_LETTER and not await self.dead_letter(row, str(code), nack.text):
            return Remedy.BACK_OFF
        elif remedy is Remedy.BACK_OFF and recovery.is_stuck(row, clock()):
            self._tell_of_stuck_batch(row, nack)
        return remedy

    def _tell_of_stuck_batch(self, row: Row, nack: m.Nack) -> None:
        """The sink stores nothing else there, so that nobody can tell whether it is the batch's fault or the sink's."""
        if self.trouble:
            return
        remedy = f"see the sink's own log; if the batch is to blame: logfwd spool set-aside {self.stream.name}"
        self.trouble = f"a batch of {row.record_count} records is refused again and again ({nack.text}); {remedy}"
        self.log.error("batch stuck", code=nack.code, detail=nack.text, records=row.record_count, remedy=remedy)

    def waits_for_another(self, row: Row) -> None:
        """A batch is stored and is not taken again, and none is behind it whose acknowledgement would cover it."""
        self._recoveries.try_again()
        if self.trouble:
            return
        remedy = "it is acknowledged with the next batch of the stream, or when the topic takes it again"
        self.trouble = f"a batch of {row.record_count} records is stored, but the topic takes it no more; {remedy}"
        self.log.error("stored batch refused", records=row.record_count, remedy=remedy)

    async def rotten(self, row: Row, text: str) -> bool:
        """A batch was damaged on disk; False if it has to wait, since the dead letters are full."""
        return self._recoveries.of_row(row).passes_over(row) or await self.dead_letter(row, "rotten", text)

    async def _split(self, row: Row) -> None:
        both = halves(await self._spool.payload(row))
        assert both is not None
        first, second = (Packed(half, parse_header(half).record_count, len(half)) for half in both)
        notes = Notes()
        self.backlog.split(row, (first, second), notes)
        await self._spool.commit(notes)

    async def dead_letter(self, row: Row, code: str, text: str) -> bool:
        """Move a batch out of the way for good, visibly; False if the dead letters are full, and it has to wait."""
        if not await self._make_room_for(row, code):
            return False
        recovery, notes = self._recoveries.of_row(row), Notes()
        self.backlog.dead_letter(row, code, text, notes)
        await self._spool.commit(notes)
        recovery.dead_lettered()
        self.metrics.records.labels(self.stream.name, "dead_lettered").inc(row.record_count)
        self.log.error("batch dead-lettered", code=code, detail=text, records=row.record_count)
        return True

    async def _make_room_for(self, row: Row, code: str) -> bool:
        """Room among the dead letters, by dropping the oldest ones if that is the stream's policy."""
        backlog = self.backlog
        while not backlog.dead_letters.has_room(row):
            if not backlog.drops_oldest:
                self._tell_of_full_letters(code)
                return False
            if (letter := await self._spool.ask(partial(oldest, stream=self.stream.name))) is None:
                break
            notes = Notes()
            backlog.drop_dead_letter(letter, notes)
            await self._spool.commit(notes)
            self.metrics.records.labels(self.stream.name, "dropped").inc(letter.record_count)
            self.log.warning("oldest dead letter dropped", records=letter.record_count, id=letter.id)
        self.trouble = ""
        return True

    def _tell_of_full_letters(self, code: str) -> None:
        if self.trouble:
            return
        remedy = "see logfwd spool ls; fix the cause, then requeue or export them, or raise max_dead_letter_bytes"
        self.trouble = f"a batch waits that cannot be stored ({code}): max_dead_letter_bytes is used up; {remedy}"
        self.log.error("dead letters full", code=code, bytes=self.backlog.dead_letters.byte_count, remedy=remedy)

    def report(self) -> m.Report:
        """The stream's totals, for the receiver's ledger."""
        totals = self.backlog.totals
        return m.Report(
            self.stream.name,
            self.boot_id,
            totals.accepted,
            totals.acknowledged,
            totals.dropped,
            totals.dead_lettered,
            totals.resets,
        )
