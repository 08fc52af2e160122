"""A link's runs and batches: opens a run, then checks each batch, hands it to the sink and answers it, in order.

One batch is produced at a time. After the first answer that is not an acknowledgement, the rest of the window is
refused untried: producing it could leave a hole that hides what was lost. Nothing here outlives the link.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import time
import zlib
from collections.abc import Awaitable, Callable

import msgspec
from structlog.typing import FilteringBoundLogger

from logreceiver.links import entries
from logreceiver.links.authorisation import Denied, authorise
from logreceiver.links.grants import Claim
from logreceiver.links.guest import Guest
from logreceiver.links.shared import Shared
from logreceiver.sinks import Kind, Outcome, TopicInfo
from streams.errors import BatchCorrupt, Code, RemoteProtocolError, SinkUnavailable
from streams.records import batch as recordbatch
from streams.telemetry.metrics import Counter
from streams.wire import messages as m

_VERDICTS = (Code.TOO_LARGE, Code.CORRUPT)
"""Refusals of the batch itself: sending it again gets the same answer. INVALID_RECORD may be a broker's own trouble."""

Job = tuple[m.OpenRun | m.Batch | m.Overlong, float, bool]
"""A message, when it arrived (monotonic seconds), and whether it is a batch beyond the identity's share."""


class OpenedRun(msgspec.Struct):
    """The run that batches must belong to."""

    number: int
    topic: str
    partition: int
    producer_id: int
    producer_epoch: int
    next_sequence: int | None = None
    """Base sequence of the next batch; None if any is right: for the first batch, and after one that is unreadable."""
    refusing: bool = False
    """True after the first refusal: the forwarder has to open the run again before anything is produced."""


class Storing:
    """Does the jobs of one link, in order. The protocol's window bounds how many can wait."""

    def __init__(
        self,
        guest: Guest,
        shared: Shared,
        send: Callable[[m.Message], None],
        drain: Callable[[], Awaitable[None]],
        log: FilteringBoundLogger,
    ) -> None:
        self.memory = shared.budget.allotment(guest.identity)
        """Of the batches that wait, and of the one that is being received."""
        self._jobs: asyncio.Queue[Job] = asyncio.Queue()
        self._guest = guest
        self._shared = shared
        self._send = send
        self._drain = drain
        self._log = log
        self._conduct = shared.register.of(guest.identity, time.monotonic())
        self._run: OpenedRun | None = None
        """None until the first run is open; the wire protocol lets no batch come before."""
        self._counters: dict[str, tuple[Counter, Counter, Counter]] = {}
        """By outcome."""
        self._busy = False
        self._finished: Callable[[], None] | None = None
        """Set once nothing more is to be taken: called after the job under way."""
        self._sink_seconds = shared.metrics.sink_seconds.labels(guest.label, shared.sink.name)

    def put(self, message: m.OpenRun | m.Batch | m.Overlong, received: float) -> bool:
        """A job, with the memory that it takes; True for one more batch than the identity's share."""
        is_ahead = isinstance(message, m.Batch) and self._conduct.is_ahead(len(message.payload), received)
        self._jobs.put_nowait((message, received, is_ahead))
        if isinstance(message, m.Batch):
            self.memory.add(len(message.payload))
        return is_ahead

    @property
    def topic(self) -> str:
        """Of the run that is open; empty before the first."""
        return "" if self._run is None else self._run.topic

    @property
    def is_idle(self) -> bool:
        """True if nothing waits for the sink, apart from what it is storing."""
        return self._jobs.empty()

    async def work(self) -> None:
        """Work until cancelled; raises ProtocolError if the forwarder breaks the protocol."""
        while self._finished is None:
            message, received, is_ahead = await self._jobs.get()
            if self._finished is not None:  # while it waited: then the link ends, and this gets no answer
                return
            self._busy = True
            if isinstance(message, m.OpenRun):
                await self._open_run(message)
            elif isinstance(message, m.Overlong):
                self._read_past(message, received)
            else:
                await self._store(message, received, is_ahead)
                self.memory.give(len(message.payload))
            self._busy = False
            await self._drain()  # a forwarder that reads no answers gets no further batch stored
        self._finished()

    def finish(self, finished: Callable[[], None]) -> None:
        """Take nothing more; `finished` is called once what the sink has is answered."""
        self._finished = finished
        if not self._busy:
            finished()

    async def _open_run(self, ask: m.OpenRun) -> None:
        if self._guest.hello.is_probe:
            raise RemoteProtocolError(Code.UNEXPECTED_MESSAGE, "OPEN_RUN of a probe")
        await asyncio.sleep(self._conduct.runs.take(1, time.monotonic()))
        try:
            answer = await self._shared.patience.until(lambda: self._run_of(ask), ask.patience_ms / 1000)
        except SinkUnavailable as error:
            code, reason = str(error.code), str(error)
            self._say(
                f"run not opened: {code}",
                lambda more: self._log.warning("run not opened", run=ask.run, code=code, reason=reason, more=more),
            )
            self._send(m.Nack(-1, code, text=m.fit(reason)))
            return
        self._run = OpenedRun(ask.run, answer.topic, answer.partition, answer.producer_id, max(ask.producer_epoch, 0))
        self._send(answer)

    async def _run_of(self, ask: m.OpenRun) -> m.Run:
        sink = self._shared.sink
        if not sink.cluster_id:  # it was never reached, and a grant names its cluster
            await sink.find(self._guest.topic)
        return await (self._known_run(ask) if ask.producer_id >= 0 else self._new_run(ask))

    async def _new_run(self, ask: m.OpenRun) -> m.Run:
        """Hand out a producer id under which nothing was ever stored."""
        topic = await self._topic()
        producer_id = await self._shared.sink.new_producer_id()
        identity, stream = self._guest.identity, self._guest.hello.stream
        partition = ask.partition
        if not 0 <= partition < topic.partition_count:
            # By name, so that new runs of a stream stay in one partition and its records in their order.
            partition = zlib.crc32((identity + stream).encode()) % topic.partition_count
        grant = self._shared.grants.sign(self._claim(topic.name, partition, producer_id))
        return m.Run(
            ask.run,
            topic.name,
            topic.topic_id,
            partition,
            producer_id,
            grant,
            max_message_bytes=topic.max_message_bytes,
            cluster_id=self._shared.sink.cluster_id,
        )

    async def _topic(self) -> TopicInfo:
        """The stream's. New ones have a pace, as they cost the sink more than batches."""
        if (topic := await self._shared.sink.find(self._guest.topic)) is not None:
            return topic
        await asyncio.sleep(self._conduct.topics.take(1, time.monotonic()))
        return await self._shared.sink.topic(self._guest.topic)

    async def _known_run(self, ask: m.OpenRun) -> m.Run:
        """What the sink has of a run whose grant is presented; the run keeps the topic it was opened for."""
        if not self._shared.grants.honours(ask.grant, self._claim(ask.topic, ask.partition, ask.producer_id)):
            raise SinkUnavailable(Code.NOT_GRANTED, "the grant is not one that this receiver honours")
        if not self._may_continue(ask.topic):
            text = f"topic {ask.topic} is not this stream's any more; the receiver may let it drain: [[allow]] drains"
            raise SinkUnavailable(Code.NOT_GRANTED, text)
        topic = await self._shared.sink.topic(ask.topic)  # its id shows the forwarder if it was created again
        stored = await self._shared.sink.ask(ask.topic, ask.partition, ask.producer_id)
        known = (-1, -1) if stored is None else (stored.producer_epoch, stored.last_sequence)
        where = (ask.run, topic.name, topic.topic_id, ask.partition)
        cluster_id = self._shared.sink.cluster_id
        return m.Run(*where, ask.producer_id, ask.grant, *known, topic.max_message_bytes, cluster_id)

    def _may_continue(self, topic: str) -> bool:
        """By the rules of now: a grant holds no time."""
        hello, config, names = self._guest.hello, self._shared.config, self._guest.facts.identities
        try:
            permit = authorise(
                config.allow, names, hello.stream, hello.mode, deny=config.deny, reserved=config.reserved
            )
        except Denied:  # a reload is about to end the link
            return False
        return topic != config.reserved and permit.covers(topic, datetime.datetime.now(datetime.UTC).date().isoformat())

    def _claim(self, topic: str, partition: int, producer_id: int) -> Claim:
        cluster_id = self._shared.sink.cluster_id
        return Claim(self._guest.identity, self._guest.hello.stream, cluster_id, topic, partition, producer_id)

    def _read_past(self, batch: m.Overlong, received: float) -> None:
        """Refuse a batch that the run's topic would not take; nothing is known of its sequence."""
        run = self._run
        assert run is not None
        run.next_sequence = None
        code = Code.NOT_TRIED if run.refusing else Code.TOO_LARGE
        outcome = Outcome.refused(code, f"{batch.payload_bytes} bytes, more than topic {run.topic} takes")
        self._answer(batch.seq, received, outcome, 0.0, size=batch.payload_bytes)

    async def _store(self, batch: m.Batch, received: float, is_ahead: bool) -> None:
        run = self._run
        assert run is not None
        try:
            header = recordbatch.check(batch.payload)
            if header.record_count != batch.record_count:
                raise BatchCorrupt(f"{batch.record_count} records announced, {header.record_count} in the header")
        except BatchCorrupt as error:
            run.next_sequence = None  # the sequences of such a batch cannot be trusted, so the next one is not compared
            self._answer(batch.seq, received, Outcome.refused(Code.CORRUPT, str(error)), 0.0, size=len(batch.payload))
            return
        self._check_stamp(run, header)  # of a refused window, too: a wrong stamp is a fault of the forwarder either way
        run.next_sequence = (header.base_sequence + header.record_count) % recordbatch.SEQUENCES
        if run.refusing:
            self._answer(batch.seq, received, Outcome.refused(Code.NOT_TRIED), 0.0, size=len(batch.payload))
            return
        limit = self._shared.config.limits.max_rate_per_identity_bytes
        if early := self._conduct.early(len(batch.payload), limit, time.monotonic()):
            await asyncio.sleep(early)
        async with self._shared.convoy.passing(self._guest.identity) if is_ahead else contextlib.nullcontext():
            started = time.monotonic()
            if self._finished is not None:  # meanwhile; the sink has not seen it
                return
            outcome = await self._shared.sink.produce(run.topic, run.partition, batch.payload)
        sink_seconds = time.monotonic() - started
        meanwhile = self._note(run, header, outcome)  # before the answer: sending that fails on a lost link
        records = 0 if outcome.kind is Kind.REFUSED else header.record_count  # else nobody but the peer says so
        size = len(batch.payload)
        self._answer(batch.seq, received, outcome, sink_seconds, size=size, records=records, meanwhile=meanwhile)

    def _note(self, run: OpenedRun, header: recordbatch.Header, outcome: Outcome) -> int:
        """Note what became of a batch; returns what else was stored since it was refused for its records."""
        partition, meanwhile = (run.topic, run.partition), self._shared.meanwhile
        stamp = (header.producer_id, header.producer_epoch, header.base_sequence)
        if outcome.is_stored:
            self._keep_batch(run, header, outcome)
            meanwhile.stored(partition, stamp)
        return meanwhile.refused(partition, stamp) if outcome.code is Code.INVALID_RECORD else 0

    @staticmethod
    def _check_stamp(run: OpenedRun, header: recordbatch.Header) -> None:
        """A batch must carry the granted producer and follow the batch before it."""
        if (header.producer_id, header.producer_epoch) != (run.producer_id, run.producer_epoch):
            raise RemoteProtocolError(Code.NOT_GRANTED, "the batch carries another producer than the run's")
        if run.next_sequence is not None and header.base_sequence != run.next_sequence:
            raise RemoteProtocolError(
                Code.BAD_SEQUENCE, f"base sequence {header.base_sequence}, not {run.next_sequence}"
            )

    def _answer(
        self,
        seq: int,
        received: float,
        outcome: Outcome,
        sink_seconds: float,
        *,
        size: int,
        records: int = 0,
        meanwhile: int = 0,
    ) -> None:
        run = self._run
        assert run is not None
        stored = outcome.is_stored
        batches, records_, bytes_ = self._counted(outcome.kind.value)
        batches.inc()
        records_.inc(records)
        bytes_.inc(size)
        self._guest.account.bytes += size
        if stored:
            self._sink_seconds.observe(sink_seconds)
            waited = time.monotonic() - received - sink_seconds  # behind earlier batches, and for our own checks
            self._send(m.Ack(seq, run.partition, outcome.base_offset, int(waited * 1e6), int(sink_seconds * 1e6)))
            return
        run.refusing = True
        code = str(outcome.code or Code.UNKNOWN)
        if code != Code.NOT_TRIED:  # the refusal before it was logged
            kind, why = outcome.kind.value, outcome.text
            self._say(
                f"batch not stored: {code}",
                lambda more: self._log.warning("batch not stored", code=code, outcome=kind, reason=why, more=more),
            )
        uncertain = outcome.kind is Kind.UNCERTAIN
        permanent = not uncertain and code in _VERDICTS
        self._send(m.Nack(seq, code, uncertain, permanent, m.fit(outcome.text), meanwhile))

    def _say(self, event: str, write: Callable[[int], None]) -> None:
        """A line that this identity can cause as often as it likes."""
        self._shared.sparing.say((event, self._guest.identity), write)

    def _counted(self, outcome: str) -> tuple[Counter, Counter, Counter]:
        """Counters of batches, records and bytes; cached, as looking them up costs more than counting."""
        found = self._counters.get(outcome)
        if found is None:
            metrics, stream = self._shared.metrics, self._guest.label
            batches, records, bytes_ = metrics.batches, metrics.records, metrics.bytes
            found = batches.labels(stream, outcome), records.labels(stream, outcome), bytes_.labels(stream, outcome)
            self._counters[outcome] = found
        return found

    # -- for the ledger ------------------------------------------------------------------------------------------

    def _keep_batch(self, run: OpenedRun, header: recordbatch.Header, outcome: Outcome) -> None:
        if self._shared.ledger is not None:
            where = (run.number, run.topic, run.partition)
            self._shared.ledger.batch(entries.of_batch(self._guest, where, header, outcome, time.time()))

    def keep_report(self, report: m.Report) -> None:
        """Put a forwarder's totals into the ledger."""
        if self._shared.ledger is not None:
            run = -1 if self._run is None else self._run.number
            self._shared.ledger.report(entries.of_report(self._guest, run, report, time.time()))
