"""One link from HELLO to its end: ask, send within the window, take the answers.

HELLO → WELCOME; then for the run at the head of the backlog OPEN_RUN → RUN, a plan, and batches until the run is done,
a batch is refused, or the link is to be left. Then everything in flight is answered before anything else is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable

import msgspec

from logfwd.clocks import clock
from logfwd.links.delivery import Delivery
from logfwd.links.question import Question
from logfwd.links.resume import GoOn, Plan, Remedy, Repeat, Reset, Wait
from logfwd.links.rounds import Rounds
from logfwd.spool.rows import Row, Run
from streams.errors import (
    BatchCorrupt,
    Code,
    LinkError,
    LinkRefused,
    LocalProtocolError,
    ProtocolError,
    RemoteProtocolError,
)
from streams.pace import Bucket
from streams.security.transport import Link
from streams.wire import messages as m
from streams.wire.connection import ForwarderConnection, error_message

LOOK_SECONDS = 1.0
PING_IDLE_SECONDS = 10.0
SILENCE_PINGS = 3
REPORT_SECONDS = 10.0
PINGS_PER_SECOND = 4.0
MOST_PINGS = 100.0
"""What a receiver may say beside its answers: a PING a second, some more if we did not read for a while."""
FULL_PAUSE_SECONDS = 10.0
"""Pause before a batch is tried again that cannot be set aside, since the dead letters are full."""
CLOCK_SKEW_WARNING_SECONDS = 30.0


class Sent(msgspec.Struct, eq=False):
    """A batch on the wire."""

    row: Row
    at: float


class Conversation:
    """One link's part of a delivery. `wake` is set when there is something new to send."""

    def __init__(
        self, link: Link, delivery: Delivery, rounds: Rounds, wake: asyncio.Event, rotate: Callable[[], None]
    ) -> None:
        self.leaving = ""
        """Why the link is to be left; empty as long as it is used."""
        self.seeks_another = False
        """True if it was left for a receiver that can serve."""
        self._link = link
        self._delivery = delivery
        self._rounds = rounds
        self._wake = wake
        """Set by commits, by answers and by `leave`: `_talk` then looks again."""
        self._rotate = rotate
        """Called when the link is old enough: makes the next one, then has this one left."""
        self._wire = ForwarderConnection(m.MAX_FRAME_BYTES_BEFORE_WELCOME)  # nothing that a receiver says is longer
        self._question = Question()
        self._in_flight: deque[Sent] = deque()
        """Sent and not answered. Answers come in the same order, so each belongs to the first."""
        self._refusal: tuple[Row, m.Nack, bool] | None = None
        """First refusal of a window, and whether its batch was alone on the wire. Later ones only follow from it."""
        self.has_served = False
        """True once the receiver has stored a batch, until it breaks the protocol."""
        self._pace = Bucket(PINGS_PER_SECOND, MOST_PINGS, clock())
        self._seq = 0
        self._heard_at = clock()
        self._welcome: m.Welcome | None = None
        self._receiver_clock_ms = 0
        """What its wall clock showed when our clock for intervals, which is never set back, stood at 0."""
        self.log = delivery.log.bind(receiver=link.peer)

    async def run(self) -> None:
        """Raises LinkError or ProtocolError unless the link ends because we left it."""
        tasks = [asyncio.create_task(part) for part in (self._talk(), self._read(), self._watch())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
            await self._link.close()
        except ProtocolError as error:
            self.has_served = False
            with contextlib.suppress(LocalProtocolError):
                self._link.write(*self._wire.send(error_message(error)))
            await self._link.close()
            raise
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._link.abort()
            if self._in_flight:  # all in flight are of one run, so one row stands for them
                self._delivery.uncertain(self._in_flight[0].row)

    def leave(self, reason: str) -> None:
        """Leave the link in an orderly way: nothing new is sent, outstanding answers are awaited."""
        self.leaving = self.leaving or reason
        if self.welcomed:
            self._question.give_up()
        self._wake.set()

    @property
    def welcomed(self) -> bool:
        return self._welcome is not None

    @property
    def unacknowledged(self) -> int:
        return len(self._in_flight)

    @property
    def unanswered_seconds(self) -> float:
        """How long the receiver has owed the answer that is due next; 0 if it owes none."""
        since = self._in_flight[0].at if self._in_flight else self._question.asked_at
        return 0.0 if since is None else clock() - since

    # -- talking -----------------------------------------------------------------------------------------------

    async def _talk(self) -> None:
        welcome = await self._hello()
        while not self.leaving:
            if (run := self._delivery.head_run()) is None:
                await self._something_new()
                continue
            await self._carry_out(await self._ask(run, welcome), run, welcome)
        await self._all_answered()
        self._send(self._delivery.report())  # after the last answer, so that the ledger gets the final totals
        self._send(m.Goaway(m.fit(self.leaving)))

    async def _carry_out(self, plan: Plan, run: Run, welcome: m.Welcome) -> None:
        if isinstance(plan, Wait):
            self.log.info("waiting to resume", reason=plan.reason, seconds=round(plan.until - clock(), 2))
            await self._pause(plan.until - clock())
        elif isinstance(plan, Reset):
            await self._delivery.reset(run, plan)
        elif isinstance(plan, GoOn) and plan.behind is not None and await self._next_row(run) is None:
            self._delivery.waits_for_another(plan.behind)
            await self._pause(self._delivery.backoff.next())
        else:
            await self._send_run(run, plan, welcome)

    async def _hello(self) -> m.Welcome:
        delivery, stream = self._delivery, self._delivery.stream
        twin_of = stream.mirror_of or ""
        names = (stream.name, stream.security, twin_of)
        self._send(m.Hello(m.VERSION, delivery.forwarder_id, delivery.boot_id, *names, True))
        welcome = await self._question.answer(delivery.answer_timeout_seconds)
        assert isinstance(welcome, m.Welcome)
        if stream.topic is not None and welcome.topic != stream.topic:
            raise ProtocolError(Code.POLICY, f"the receiver writes to {welcome.topic!r}, not to {stream.topic!r}")
        delivery.topic = welcome.topic
        delivery.receiver_takes(welcome.produce_ms / 1000)
        self._receiver_clock_ms = welcome.server_time_ms - int(clock() * 1000)
        ahead_seconds = welcome.server_time_ms / 1000 - time.time()
        if abs(ahead_seconds) > CLOCK_SKEW_WARNING_SECONDS:
            self.log.warning("clocks differ", receiver_ahead_seconds=round(ahead_seconds, 1))
        delivery.metrics.link_opened(stream.name, stream.security, receiver=self._link.peer, facts=self._link.facts)
        facts = self._link.facts
        self.log.info(
            "link opened", group=facts.group, version=facts.version, topic=welcome.topic, window=welcome.window
        )
        self._welcome = welcome
        return welcome

    async def _ask(self, run: Run, welcome: m.Welcome) -> Plan:
        """OPEN_RUN, and the plan that its answer leads to."""
        patience = self._delivery.patience_seconds if self._rounds.may_wait else 0.0
        self._send(self._delivery.question(run, patience))
        asked_at = clock()
        answer = await self._question.answer(self._delivery.answer_timeout_seconds)
        if answer is None:
            return Wait(clock(), "the link is left")
        if isinstance(answer, m.Run):
            self._rounds.serves()
            return await self._delivery.plan(run, welcome, answer)
        assert isinstance(answer, m.Nack)
        return self._not_opened(run, answer, was_held=0 < patience < 2 * (clock() - asked_at))

    def _not_opened(self, run: Run, nack: m.Nack, *, was_held: bool) -> Plan:
        """Ask again, here at once if the receiver has held its answer for as long as it could, or elsewhere."""
        code = Code.parse(nack.code)
        self.log.warning("run not opened", code=nack.code, detail=nack.text)
        self._delivery.failed(str(code), nack.text)
        plan = self._delivery.not_granted(run) if code is Code.NOT_GRANTED else Wait(clock(), str(code))
        if not isinstance(plan, Wait):
            return plan
        if self._rounds.cannot_serve(clock()):
            self.seeks_another = True
            self.leave(m.fit(f"this receiver cannot serve: {code}"))
            return plan
        return plan if was_held else Wait(plan.until + self._delivery.backoff.next(), plan.reason)

    async def _send_run(self, run: Run, plan: GoOn | Repeat, welcome: m.Welcome) -> None:
        """Send a run's batches until it is done, one is refused, or the link is to be left."""
        window = min(welcome.window, self._delivery.stream.window)
        if isinstance(plan, Repeat) and await self._send_row(plan.row, run):
            await self._all_answered()  # its acknowledgement covers what comes before it
        while self._refusal is None and not self.leaving:
            self._wake.clear()  # before looking: a wake-up during an await below must not be missed
            row = await self._next_row(run) if self._may_send(window) else None
            if row is not None and await self._send_in_its_turn(row, run):
                continue
            head = self._delivery.head_run()
            if not self._in_flight and head is not None and head is not run:
                return  # this run is done: the next has to be asked for
            await self._wake.wait()
        await self._all_answered()  # a remedy may change stamps, so nothing with the old ones may be on the wire
        if self._refusal is not None:
            (row, nack, alone), self._refusal = self._refusal, None
            if await self._delivery.refused(row, nack, alone=alone) is Remedy.BACK_OFF:
                await self._pause(FULL_PAUSE_SECONDS if self._delivery.trouble else self._delivery.backoff.next())
            if Code.parse(nack.code) is Code.CLOCK:
                self.leave("the receiver's clock has changed")  # the next WELCOME brings its new time

    async def _next_row(self, run: Run) -> Row | None:
        await self._delivery.split_overlong(run, lambda: len(self._in_flight))  # answers may come meanwhile
        return await self._delivery.next_row(run, len(self._in_flight))

    def _may_send(self, window: int) -> bool:
        """After a refusal one batch shows whether the next would be stored."""
        most = window if self._delivery.backoff.is_calm else 1
        return len(self._in_flight) < most and self._wire.can_send_batch

    async def _send_in_its_turn(self, row: Row, run: Run) -> bool:
        """Send a batch; one that was refused for its records goes alone. False while it has to wait for that."""
        alone = self._delivery.must_send_alone(row)
        if alone and self._in_flight:
            return False
        if not await self._send_row(row, run):
            return False
        if alone:
            await self._all_answered()
        return True

    async def _send_row(self, row: Row, run: Run) -> bool:
        """False if the link was closed to new batches while the payload was fetched: nothing was sent then."""
        now_ms = int(clock() * 1000) + self._receiver_clock_ms
        try:
            payload = await self._delivery.stamped_payload(row, run, now_ms)
        except BatchCorrupt as error:
            await self._all_answered()  # a dead letter leaves a gap: only a reset, with nothing on the wire, closes it
            if not await self._delivery.rotten(row, str(error)):
                await self._pause(FULL_PAUSE_SECONDS)
            raise LinkError("a batch failed its CRC in the spool; resuming") from error
        if self._refusal is not None or not self._wire.can_send_batch:
            return False
        self._send(m.Batch(self._seq, run.number, row.record_count, memoryview(payload)))
        self._in_flight.append(Sent(row, clock()))  # before anything is awaited, so that its answer finds it
        self._seq += 1
        await self._link.drain()
        return True

    async def _all_answered(self) -> None:
        while self._in_flight:
            await self._something_new()

    async def _something_new(self) -> None:
        self._wake.clear()
        await self._wake.wait()

    async def _pause(self, seconds: float) -> None:
        """Wait, but no longer once the link is to be left."""
        until = clock() + seconds
        while not self.leaving and (left := until - clock()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._something_new()

    def _send(self, message: m.Message) -> None:
        self._link.write(*self._wire.send(message))

    # -- listening ---------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        while data := await self._link.receive():
            self._heard_at = clock()
            for event in self._wire.messages(data):
                if isinstance(event, m.Ping | m.Pong | m.Goaway):
                    self._check_pace()
                self._take(event)
                if isinstance(event, m.Ping):
                    await self._link.drain()  # whoever reads no PONGs is not read, either
            self._wake.set()
        if self._in_flight or not self.leaving:
            raise LinkError("the receiver closed the link")

    def _check_pace(self) -> None:
        if self._pace.take(1, clock()):
            raise RemoteProtocolError(Code.TOO_FAST, f"more than {PINGS_PER_SECOND:g} PINGs and such a second")

    def _take(self, event: m.Message) -> None:
        if isinstance(event, m.Ack):
            sent = self._in_flight.popleft()
            self._delivery.acknowledged(sent.row, event, sent.at)
            self.has_served = True
        elif isinstance(event, m.Nack) and event.seq >= 0:
            alone = len(self._in_flight) == 1  # in company, a neighbour may be the cause
            sent = self._in_flight.popleft()
            if event.uncertain:  # at once: it is not forgotten if the link ends before the refusal is dealt with
                self._delivery.uncertain(sent.row)
            if self._refusal is None:
                self._refusal = (sent.row, event, alone)
        elif isinstance(event, m.Welcome | m.Run | m.Nack):
            self._question.take(event)
        elif isinstance(event, m.Ping):
            self._send(m.Pong(event.token))
        elif isinstance(event, m.Goaway):
            self.leave(f"the receiver asked to: {event.reason}")
        elif isinstance(event, m.Error):
            raise LinkRefused(Code.parse(event.code), event.text)

    async def _watch(self) -> None:
        """Watch the link: by the answer time limit while batches are in flight, otherwise by pings; report; rotate."""
        token, reported, reported_at = 0, None, 0.0
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            now = clock()
            pause = LOOK_SECONDS if self._in_flight else PING_IDLE_SECONDS
            if self._in_flight and now - self._in_flight[0].at > self._delivery.answer_timeout_seconds:
                raise LinkError("a batch was not answered in time")
            quiet_since = max(self._heard_at, self._in_flight[0].at) if self._in_flight else self._heard_at
            if now - quiet_since > SILENCE_PINGS * pause + LOOK_SECONDS:
                raise LinkError("the receiver fell silent")
            if self.welcomed and now - self._heard_at >= pause:
                token += 1
                self._send(m.Ping(token))
            if not self.welcomed or self.leaving:
                continue
            report = self._delivery.report()
            if report != reported and now - reported_at >= REPORT_SECONDS:
                reported, reported_at = report, now
                self._send(report)
            if self._link.should_rotate():
                self._rotate()
