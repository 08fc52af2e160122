"""One stream's link to a receiver: connect, ask, send within the window, take the answers.

The order of things, on every link: HELLO → WELCOME; then for the run at the head of the backlog OPEN_RUN → RUN, a
plan from resume.py, and batches until the run is done, something is refused, or the link is to be left. Nothing is
sent before the commit of the stamp it carries; only an ACK takes a batch out of the spool.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from logfwd.backlog import Backlog, Row, Run
from logfwd.resume import Answer, GoOn, Plan, Recovery, Remedy, Repeat, Reset, Wait
from logfwd.spool import Notes, Spool
from streams import recordbatch
from streams.definition import Stream
from streams.errors import BatchCorrupt, Code, HandshakeFailed, LinkError, LinkRefused, PolicyViolation, ProtocolError
from streams.recordbatch import Packed
from streams.security.transport import Link
from streams.telemetry.catalog import ForwarderMetrics
from streams.wire import messages as m
from streams.wire.connection import ForwarderConnection, error_message

FIRST_BACKOFF_SECONDS = 0.1
MAX_BACKOFF_SECONDS = 10.0
PING_BUSY_SECONDS = 1.0
PING_IDLE_SECONDS = 10.0
MISSED_PINGS = 3
REPORT_SECONDS = 10.0
CLOCK_SKEW_WARNING_SECONDS = 30.0

Connect = Callable[[], Awaitable[Link]]


def clock() -> float:
    """Seconds that go on counting while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(slots=True, eq=False)
class Sent:
    """A batch on the wire."""

    row: Row
    at: float


class Sender:
    """Sends one stream's backlog, for as long as it runs."""

    def __init__(
        self, stream: Stream, backlog: Backlog, spool: Spool, connect: Connect, metrics: ForwarderMetrics, *,
        boot_id: str, answer_timeout_seconds: float,
    ) -> None:  # fmt: skip
        self.stream = stream
        self.backlog = backlog
        self.link: Link | None = None
        self.wake = asyncio.Event()
        self.progress = asyncio.Event()
        self._spool = spool
        self._connect = connect
        self._metrics = metrics
        self._boot_id = boot_id
        self._answer_timeout = answer_timeout_seconds
        self._recoveries: dict[int, Recovery] = {}
        self._failures = 0
        self._leaving = ""
        self._stopping = False
        self._next_link: asyncio.Task[Link] | None = None
        self.log = structlog.get_logger("logfwd.sender").bind(stream=stream.name, mode=stream.security)
        for run in backlog.runs.values():
            if any(True for _ in backlog.stamped(run)):
                self._recovery(run).uncertain(clock())

    def stop(self) -> None:
        """Leave the link once everything on it is answered; `run` returns."""
        self._stopping = True
        self.leave("the forwarder stops")

    def leave(self, reason: str) -> None:
        """Give the link up in an orderly way: rotation, reload, or the receiver's wish."""
        self._leaving = self._leaving or reason
        self.wake.set()

    def drained(self) -> bool:
        return not self.backlog.rows

    # -- links -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep a link, for ever; returns after stop()."""
        while not self._stopping:
            self._leaving = ""
            try:
                link = await self._new_link()
                await self._use(link)
                self._failures = 0
            except (LinkError, ProtocolError, ConnectionError, TimeoutError) as error:
                await self._link_failed(error)

    async def _new_link(self) -> Link:
        if self._next_link is not None:
            task, self._next_link = self._next_link, None
            return await task
        return await self._connect()

    async def _use(self, link: Link) -> None:
        self.link = link
        conversation = Conversation(self, link)
        try:
            await conversation.run()
        finally:
            self.link = None
            self._metrics.link_closed(self.stream.name)
            if conversation.in_flight:
                self._recovery_of(conversation.in_flight[0].row).uncertain(clock())

    async def _link_failed(self, error: Exception) -> None:
        reason = _reason(error)
        self._metrics.link_failures.labels(self.stream.name, reason).inc()
        pause = min(FIRST_BACKOFF_SECONDS * 2**self._failures, MAX_BACKOFF_SECONDS) * random.uniform(0.5, 1.0)  # noqa: S311
        self._failures = min(self._failures + 1, 10)
        self.log.warning("link failed", reason=reason, detail=str(error), retry_in_seconds=round(pause, 2),
                         waiting_batches=len(self.backlog.rows))  # fmt: skip
        if isinstance(error, HandshakeFailed):
            self._metrics.failed_handshake(
                error.reason, role="forwarder", stream=self.stream.name, mode=self.stream.security
            )
        await self.pause(pause)

    async def pause(self, seconds: float) -> None:
        """Wait, but not beyond a stop."""
        until = clock() + seconds
        while not self._stopping and (left := until - clock()) > 0:
            self.wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self.wake.wait()

    def prepare_rotation(self) -> None:
        """Make the next link while this one is still in use, then leave this one."""
        if self._next_link is None:
            self.log.info("rotating the link")
            self._next_link = asyncio.create_task(self._rotated_link())

    async def _rotated_link(self) -> Link:
        try:
            return await self._connect()
        finally:
            self.leave("rotation")

    # -- runs --------------------------------------------------------------------------------------------------

    def _recovery(self, run: Run) -> Recovery:
        return self._recoveries.setdefault(
            run.number, Recovery(produce_timeout_seconds=self._answer_timeout)
        )  # fmt: skip

    def _recovery_of(self, row: Row) -> Recovery:
        return self._recovery(self.backlog.runs[row.run])

    async def plan(self, run: Run, welcome: m.Welcome, answer: m.Run | m.Nack) -> Plan:
        """Take a receiver's answer to OPEN_RUN: a grant for a new run, or what the sink has of an older one."""
        recovery = self._recovery(run)
        if isinstance(answer, m.Nack):
            code = Code.parse(answer.code)
            self.log.warning("the receiver cannot open the run", code=answer.code, detail=answer.text)
            self._metrics.link_failures.labels(self.stream.name, str(code)).inc()
            plan = recovery.not_granted(clock()) if code is Code.NOT_GRANTED else Wait(clock(), str(code))
            return await self._backed_off(plan)
        self._failures = 0
        if not run.granted:
            notes = Notes()
            granted = Run(run.number, welcome.cluster_id, answer.topic, answer.topic_id, answer.partition,
                          answer.producer_id, grant=answer.grant)  # fmt: skip
            self.backlog.grant(run, granted, notes)
            self.backlog.forget_finished_runs(notes)
            await self._spool.commit(notes)
            return GoOn()
        known = Answer(welcome.cluster_id, answer.topic_id, answer.stored_epoch, answer.stored_sequence)
        return recovery.plan(run, list(self.backlog.stamped(run)), known, clock())

    async def _backed_off(self, plan: Plan) -> Plan:
        """A plan to wait waits longer each time."""
        if not isinstance(plan, Wait):
            return plan
        pause = min(FIRST_BACKOFF_SECONDS * 2**self._failures, MAX_BACKOFF_SECONDS)
        self._failures = min(self._failures + 1, 10)
        return Wait(plan.until + pause * random.uniform(0.5, 1.0), plan.reason)  # noqa: S311

    async def reset(self, run: Run, plan: Reset) -> None:
        """Carry out a reset; committed before anything more is sent."""
        notes = Notes()
        uncertain = self.backlog.reset(run, notes, new_producer=plan.new_producer)
        await self._spool.commit(notes)
        self._recovery(run).was_reset()
        self._metrics.run_resets.labels(self.stream.name, plan.reason).inc()
        self.log.error("reset a run", run=run.number, reason=plan.reason, batches_possibly_repeated=uncertain,
                       new_producer=not run.granted)  # fmt: skip

    async def next_row(self, run: Run, in_flight: int) -> Row | None:
        """The next batch of a run that may be sent, stamped and committed; None if there is none now."""
        rows = self.backlog.rows
        if in_flight >= len(rows) or rows[in_flight].run != run.number:
            return None
        row = rows[in_flight]
        if row.base_sequence is None and row.committed:
            notes = Notes()
            self.backlog.stamp(run, notes)
            await self._spool.commit(notes)
        return row if row.committed and row.base_sequence is not None else None

    def acknowledged(self, row: Row, ack: m.Ack, sent_at: float, now: float) -> None:
        """A batch is stored: observe it, and let it leave the spool."""
        self._recovery_of(row).acknowledged()
        name, metrics = self.stream.name, self._metrics
        stages = metrics.batch_stage
        sink, queue = ack.sink_us / 1e6, ack.receive_to_sink_us / 1e6
        stages.labels(name, "sink").observe(sink)
        stages.labels(name, "wire").observe(max(now - sent_at - sink - queue, 0.0))
        if row.sealed_at is not None:
            metrics.batch_duration.labels(name, self.stream.security).observe(now - row.sealed_at)
            stages.labels(name, "queue").observe(max(sent_at - (row.committed_at or sent_at), 0.0))
        notes = Notes()
        leaving = self.backlog.acknowledge(row, notes)
        metrics.records.labels(name, "acknowledged").inc(sum(done.record_count for done in leaving))
        self._spool.ride_along(notes)
        self.progress.set()

    async def refused(self, row: Row, nack: m.Nack, *, alone: bool) -> None:
        """The first batch of the window that was not acknowledged; everything after it was not tried."""
        recovery, code = self._recovery_of(row), Code.parse(nack.code)
        remedy = recovery.refused(row, code, permanent=nack.permanent, uncertain=nack.uncertain, alone=alone,
                                  now=clock())  # fmt: skip
        if code is Code.INVALID_RECORD:
            recovery.suspect(row)
        self.log.warning("batch refused", code=str(code), uncertain=nack.uncertain, remedy=remedy.value,
                         records=row.record_count, detail=nack.text)  # fmt: skip
        self._metrics.link_failures.labels(self.stream.name, str(code)).inc()
        if remedy is Remedy.SPLIT:
            await self._split(row)
        elif remedy is Remedy.DEAD_LETTER:
            await self.dead_letter(row, str(code), nack.text)
        elif remedy is Remedy.BACK_OFF:
            plan = await self._backed_off(Wait(clock(), str(code)))
            assert isinstance(plan, Wait)
            await self.pause(plan.until - clock())

    async def _split(self, row: Row) -> None:
        halves = recordbatch.halves(await self._spool.payload(row))
        assert halves is not None
        counts = [recordbatch.parse_header(half).record_count for half in halves]
        first, second = (Packed(half, count, len(half)) for half, count in zip(halves, counts, strict=True))
        notes = Notes()
        self.backlog.split(row, (first, second), notes)
        await self._spool.commit(notes)

    async def dead_letter(self, row: Row, code: str, text: str) -> None:
        """Move a batch out of the way for good, visibly."""
        recovery, notes = self._recovery_of(row), Notes()
        self.backlog.dead_letter(row, code, text, notes)
        await self._spool.commit(notes)
        recovery.dead_lettered()
        self._metrics.records.labels(self.stream.name, "dead_lettered").inc(row.record_count)
        self.log.error("moved a batch to the dead letters", code=code, detail=text, records=row.record_count)

    async def stamped_payload(self, row: Row, run: Run, receiver_now_ms: int) -> bytearray:
        """A batch ready for the wire; a rotten one never gets a fresh CRC."""
        assert row.base_sequence is not None
        payload = await self._spool.payload(row)
        return recordbatch.stamp(payload, producer_id=run.producer_id, producer_epoch=run.producer_epoch,
                                 base_sequence=row.base_sequence, now_ms=receiver_now_ms)  # fmt: skip

    def must_send_alone(self, row: Row) -> bool:
        return self._recovery_of(row).must_send_alone(row)


class Conversation:
    """What goes on over one link, from HELLO to its end."""

    def __init__(self, sender: Sender, link: Link) -> None:
        self.in_flight: deque[Sent] = deque()
        self._sender = sender
        self._link = link
        self._wire = ForwarderConnection()
        self._answers: asyncio.Queue[m.Welcome | m.Run | m.Nack] = asyncio.Queue()
        self._refusal: tuple[Row, m.Nack, bool] | None = None
        self._seq = 0
        self._heard_at = clock()
        self._welcome: m.Welcome
        self._clock_offset_ms = 0
        self.log = sender.log.bind(receiver=link.peer)

    async def run(self) -> None:
        """Raises LinkError or ProtocolError when the link ends otherwise than by our own wish."""
        reader, pinger = asyncio.create_task(self._read()), asyncio.create_task(self._ping())
        talker = asyncio.create_task(self._talk())
        tasks = {reader, pinger, talker}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                await task
            await self._link.close()
        except ProtocolError as error:
            with contextlib.suppress(ProtocolError):
                self._link.write(*self._wire.send(error_message(error)))
            await self._link.close()
            raise
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._link.abort()

    # -- talking -----------------------------------------------------------------------------------------------

    async def _talk(self) -> None:
        sender = self._sender
        await self._hello()
        while not sender._leaving:
            run = sender.backlog.head_run()
            if run is None or not sender.backlog.rows[0].committed:
                await self._something_new()
                continue
            plan = await sender.plan(run, self._welcome, await self._open(run))
            if isinstance(plan, Wait):
                self.log.info("waiting before asking again", reason=plan.reason, seconds=round(plan.until - clock(), 2))
                await sender.pause(plan.until - clock())
            elif isinstance(plan, Reset):
                await sender.reset(run, plan)
            else:
                await self._send_run(run, plan)
        await self._answered()
        self._send(m.Goaway(sender._leaving))

    async def _hello(self) -> None:
        sender, stream = self._sender, self._sender.stream
        self._send(
            m.Hello(m.VERSION, sender._spool.forwarder_id, sender._boot_id, stream.name, stream.security,
                    stream.mirror_of or "")
        )  # fmt: skip
        answer = await self._answer()
        assert isinstance(answer, m.Welcome)
        if stream.topic is not None and answer.topic != stream.topic:
            raise ProtocolError(Code.POLICY, f"the receiver writes to {answer.topic!r}, not to {stream.topic!r}")
        self._welcome = answer
        self._clock_offset_ms = answer.server_time_ms - int(time.time() * 1000)
        if abs(self._clock_offset_ms) > CLOCK_SKEW_WARNING_SECONDS * 1000:
            self.log.warning("clocks differ", receiver_ahead_seconds=round(self._clock_offset_ms / 1000, 1))
        sender._metrics.link_opened(stream.name, stream.security, self._link)
        self.log.info("link opened", group=self._link.facts.group, version=self._link.facts.version,
                      topic=answer.topic, window=answer.window)  # fmt: skip

    async def _open(self, run: Run) -> m.Run | m.Nack:
        if run.granted:
            self._send(m.OpenRun(run.number, run.topic, run.partition, run.producer_id, run.producer_epoch, run.grant))
        else:
            self._send(m.OpenRun(run.number))
        answer = await self._answer()
        assert not isinstance(answer, m.Welcome)
        return answer

    async def _answer(self) -> m.Welcome | m.Run | m.Nack:
        try:
            async with asyncio.timeout(self._sender._answer_timeout):
                return await self._answers.get()
        except TimeoutError:
            raise LinkError("the receiver did not answer in time") from None

    async def _send_run(self, run: Run, plan: GoOn | Repeat) -> None:
        """Send a run's batches until it is done, one is refused, or the link is to be left."""
        sender = self._sender
        if isinstance(plan, Repeat):
            await self._send_row(plan.row, run)
            await self._answered()
        while self._refusal is None and not sender._leaving:
            if self._may_send():
                row = await sender.next_row(run, len(self.in_flight))
                if row is not None and not (self.in_flight and sender.must_send_alone(row)):
                    await self._send_row(row, run)
                    if sender.must_send_alone(row):
                        await self._answered()
                    continue
            head = sender.backlog.head_run()
            if not self.in_flight and head is not None and head is not run:
                return
            await self._something_new()
        await self._answered()
        if self._refusal is not None:
            (row, nack, alone), self._refusal = self._refusal, None
            await sender.refused(row, nack, alone=alone)

    def _may_send(self) -> bool:
        window = min(self._welcome.window, self._sender.stream.window)
        return len(self.in_flight) < window and self._wire.can_send_batch

    async def _send_row(self, row: Row, run: Run) -> None:
        now_ms = int(time.time() * 1000) + self._clock_offset_ms
        try:
            payload = await self._sender.stamped_payload(row, run, now_ms)
        except BatchCorrupt as error:
            await self._answered()
            await self._sender.dead_letter(row, "rotten", str(error))
            raise LinkError("a rotten batch was moved aside; asking anew") from error
        self.in_flight.append(Sent(row, clock()))
        self._send(m.Batch(self._seq, run.number, row.record_count, memoryview(payload)))
        self._seq += 1
        await self._link.drain()

    async def _answered(self) -> None:
        """Wait until nothing is in flight."""
        while self.in_flight:
            await self._something_new()

    async def _something_new(self) -> None:
        self._sender.wake.clear()
        await self._sender.wake.wait()

    def _send(self, message: m.Message) -> None:
        self._link.write(*self._wire.send(message))

    # -- listening ---------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        while data := await self._link.receive():
            self._heard_at = clock()
            for event in self._wire.receive_data(data):
                self._take(event)
            self._sender.wake.set()
        if self.in_flight or not self._sender._leaving:
            raise LinkError("the receiver closed the link")

    def _take(self, event: object) -> None:
        if isinstance(event, m.Ack):
            sent = self.in_flight.popleft()
            self._sender.acknowledged(sent.row, event, sent.at, clock())
        elif isinstance(event, m.Nack) and event.seq >= 0:
            alone = len(self.in_flight) == 1
            sent = self.in_flight.popleft()
            if self._refusal is None:
                self._refusal = (sent.row, event, alone)
        elif isinstance(event, m.Welcome | m.Run | m.Nack):
            self._answers.put_nowait(event)
        elif isinstance(event, m.Ping):
            self._send(m.Pong(event.token))
        elif isinstance(event, m.Goaway):
            self._sender.leave(f"the receiver asked to: {event.reason}")
        elif isinstance(event, m.Error):
            raise LinkRefused(Code.parse(event.code), event.text)

    async def _ping(self) -> None:
        """Judge the link: by the answer time limit while batches are out, else by its pings."""
        token, reported = 0, None
        last_report = 0.0
        while True:
            pause = PING_BUSY_SECONDS if self.in_flight else PING_IDLE_SECONDS
            await asyncio.sleep(PING_BUSY_SECONDS)
            now = clock()
            if self.in_flight and now - self.in_flight[0].at > self._sender._answer_timeout:
                raise LinkError("a batch was not answered in time")
            if now - self._heard_at > MISSED_PINGS * pause + PING_BUSY_SECONDS:
                raise LinkError("the receiver fell silent")
            if not hasattr(self, "_welcome") or self._sender._leaving:
                continue
            if now - self._heard_at >= pause:
                token += 1
                self._send(m.Ping(token))
            totals = self._sender.backlog.totals
            report = m.Report(self._sender.stream.name, self._sender._boot_id, totals.accepted, totals.acknowledged,
                              totals.dropped, totals.dead_lettered, totals.resets)  # fmt: skip
            if report != reported and now - last_report >= REPORT_SECONDS:
                reported, last_report = report, now
                self._send(report)
            if self._link.should_rotate():
                self._sender.prepare_rotation()


def _reason(error: Exception) -> str:
    """A short label for a failed link."""
    if isinstance(error, HandshakeFailed):
        return f"handshake_{error.reason}"
    if isinstance(error, PolicyViolation):
        return "policy"
    if isinstance(error, ProtocolError | LinkRefused):
        return str(error.code)
    return "timeout" if isinstance(error, TimeoutError) else "disconnected"
