"""One link: authorise it, check its batches, hand them to the sink, answer in order.

Two things go on at once: `_read` takes messages as they come (so that a PING never waits behind a batch; the
protocol's window bounds what it can hold), `_work` produces one batch at a time and answers each. After the first
answer that is not an acknowledgement, the rest of the window is refused untried: producing it could leave a hole
that hides what was lost. The session keeps nothing that a restart could lose.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
import zlib
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import structlog

from logreceiver.authorisation import Denied, Permit, authorise
from logreceiver.config import ReceiverConfig
from logreceiver.grants import Claim, Grants
from logreceiver.ledger import Ledger
from logreceiver.ledger_records import BatchEntry, ReportEntry
from logreceiver.sinks import Kind, Outcome, Sink, TopicInfo
from streams import recordbatch
from streams.errors import BatchCorrupt, Code, LinkError, LinkRefused, PolicyViolation, ProtocolError, SinkUnavailable
from streams.security import modes
from streams.security.transport import Link
from streams.telemetry.catalog import ReceiverMetrics
from streams.wire import messages as m
from streams.wire.connection import ReceiverConnection, error_message

MAX_FRAME_BYTES = 10 * 1024 * 1024
"""Room for the largest batch that a stream may be configured to make; a topic's own limit is answered with a NACK."""

IDLE_SECONDS = 40.0
"""A forwarder pings every 10 s when idle; one that stays silent for this long is gone."""

_BODIES = (Code.TOO_LARGE, Code.CORRUPT, Code.INVALID_RECORD)


@dataclass
class OpenedRun:
    """The run that batches must belong to now."""

    number: int
    topic: str
    partition: int
    producer_id: int
    producer_epoch: int
    next_sequence: int | None = None
    refusing: bool = False


class Boots:
    """The last boots of each forwarder and stream. A, B, A means two agents with copies of one state directory."""

    MAX_KEYS = 10_000

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[str, str, str], tuple[str, ...]] = OrderedDict()

    def alternate(self, key: tuple[str, str, str], boot_id: str) -> bool:
        """Note a boot; True if it comes back after another one had taken its place."""
        before = self._seen.pop(key, ())
        self._seen[key] = before if before[-1:] == (boot_id,) else (*before[-1:], boot_id)
        if len(self._seen) > self.MAX_KEYS:
            self._seen.popitem(last=False)
        return len(before) > 1 and before[0] == boot_id and before[-1] != boot_id


@dataclass
class Shared:
    """What all sessions of a receiver use."""

    config: ReceiverConfig
    sink: Sink
    grants: Grants
    metrics: ReceiverMetrics
    ledger: Ledger | None = None
    sessions: dict[tuple[str, str, str], Session] = field(default_factory=dict)
    boots: Boots = field(default_factory=Boots)

    def window(self, max_batch_bytes: int) -> int:
        """Batches that a new link may have under way, within the receiver's memory."""
        share = self.config.limits.max_memory_bytes // max(len(self.sessions) + 1, 1)
        return min(max(share // max(max_batch_bytes, 1), 1), m.MAX_WINDOW)


Job = tuple[m.OpenRun | m.Batch, float]


class Session:
    """Serves one link until it ends. `run` never raises for what a peer does."""

    def __init__(self, link: Link, shared: Shared) -> None:
        self._link = link
        self._shared = shared
        self._connection = ReceiverConnection(MAX_FRAME_BYTES)
        self._jobs: asyncio.Queue[Job] = asyncio.Queue()
        self._run: OpenedRun | None = None
        self._ended: asyncio.Future[ProtocolError] = asyncio.get_running_loop().create_future()
        self._hello: m.Hello
        self._permit: Permit
        self._topic: TopicInfo
        self._id = uuid.uuid4().hex
        self.welcomed = False
        self.log = structlog.get_logger("logreceiver.session").bind(peer=link.peer)

    # -- life --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve the link to its end."""
        try:
            async with asyncio.timeout(self._shared.config.limits.hello_seconds):
                hello = await self._first_message()
            await self._welcome(hello)
            await self._serve()
        except TimeoutError:
            await self._refuse(ProtocolError(Code.TIMEOUT, "no HELLO within the time limit"))
        except ProtocolError as error:
            await self._refuse(error)
        except (LinkError, ConnectionError) as error:
            self.log.info("link lost", reason=str(error))
        finally:
            self._leave()
            await self._link.close()

    def end(self, code: Code, text: str) -> None:
        """Ask a session to stop at once: it was superseded."""
        if not self._ended.done():
            self._ended.set_result(ProtocolError(code, text))

    def go_away(self, reason: str, grace_seconds: float) -> None:
        """Tell the forwarder to send no new batches here."""
        if self.welcomed:
            with contextlib.suppress(ProtocolError):  # the link may just have failed
                self._send(m.Goaway(reason, int(grace_seconds * 1000)))

    async def turn_away(self, code: Code, text: str) -> None:
        """Close a link that was never served."""
        await self._refuse(ProtocolError(code, text))
        await self._link.close()

    def describe(self) -> dict[str, Any]:
        """One row of /api/v1/streams."""
        facts, hello = self._link.facts, self._hello
        return {
            "stream": hello.stream,
            "twin_of": hello.twin_of,
            "mode": hello.mode,
            "identity": self._permit.identity,
            "peer": self._link.peer,
            "group": facts.group,
            "version": facts.version,
            "cipher": facts.cipher,
            "topic": self._topic.name,
            "age_seconds": round(self._link.age, 3),
        }

    async def _first_message(self) -> m.Hello:
        while True:
            data = await self._link.receive()
            if not data:
                raise LinkError("closed before HELLO")
            for event in self._connection.receive_data(data):
                if isinstance(event, m.Hello):
                    return event
                raise LinkError(f"{type(event).__name__} instead of HELLO")

    async def _welcome(self, hello: m.Hello) -> None:
        self.log = self.log.bind(stream=hello.stream, mode=hello.mode)
        facts = self._link.facts
        if hello.version != m.VERSION:
            raise ProtocolError(Code.BAD_VERSION, f"this receiver speaks version {m.VERSION}, not {hello.version}")
        try:
            self._permit = authorise(self._shared.config.allow, facts.identities, hello.stream, hello.mode)
        except Denied as denied:
            raise ProtocolError(Code.NOT_ALLOWED, str(denied)) from denied
        if self._shared.ledger is not None and self._permit.topic == self._shared.ledger.topic:
            raise ProtocolError(Code.NOT_ALLOWED, "the ledger's topic is written by receivers alone")
        self._check_mode(hello)  # behind the permit: only streams that may exist become labels
        try:
            self._topic = await self._shared.sink.topic(self._permit.topic)
        except SinkUnavailable as error:
            raise ProtocolError(error.code, str(error)) from error
        self._hello = hello
        self.welcomed = True
        self._supersede(hello)
        self._shared.metrics.links.labels(hello.stream, facts.group).inc()
        self._send(
            m.Welcome(
                m.VERSION,
                self._id,
                self._shared.sink.cluster_id,
                self._topic.name,
                self._topic.topic_id,
                self._topic.max_message_bytes,
                self._shared.window(self._topic.max_message_bytes),
                int(time.time() * 1000),
            )
        )
        self.log.info(
            "link opened",
            identity=self._permit.identity,
            group=facts.group,
            version=facts.version,
            cipher=facts.cipher,
            topic=self._topic.name,
        )

    def _check_mode(self, hello: m.Hello) -> None:
        """Refuse a link that is weaker than the stream demands, before the first byte of data."""
        mode = modes.MODES.get(hello.mode)
        if mode is None:
            raise ProtocolError(Code.POLICY, f"unknown mode {hello.mode!r}")
        try:
            modes.check(mode, self._link.facts)
        except PolicyViolation as violation:
            self._shared.metrics.policy_violations.labels(hello.stream, "weaker_than_mode").inc()
            raise ProtocolError(Code.POLICY, str(violation)) from violation

    def _supersede(self, hello: m.Hello) -> None:
        key = (self._permit.identity, hello.forwarder_id, hello.stream)
        if self._shared.boots.alternate(key, hello.boot_id):
            self._shared.metrics.clones_suspected.labels(hello.stream).inc()
            self.log.error(
                "two boots of one forwarder take turns: was its state directory copied?",
                identity=self._permit.identity,
                forwarder_id=hello.forwarder_id,
            )
        older = self._shared.sessions.get(key)
        if older is not None:
            older.end(Code.SUPERSEDED, "a newer link of the same forwarder and stream took over")
        self._shared.sessions[key] = self

    def _leave(self) -> None:
        if not self.welcomed:
            return
        key = (self._permit.identity, self._hello.forwarder_id, self._hello.stream)
        if self._shared.sessions.get(key) is self:
            del self._shared.sessions[key]
        self._shared.metrics.links.labels(self._hello.stream, self._link.facts.group).dec()
        self.log.info("link closed")

    async def _refuse(self, error: ProtocolError) -> None:
        self.log.warning(
            "refused a link",
            code=str(error.code),
            reason=error.text,
            identities=list(self._link.facts.identities),
            group=self._link.facts.group,
        )
        self._shared.metrics.refused_links.labels(str(error.code)).inc()
        try:
            self._link.write(*self._connection.send(error_message(error)))
        except ProtocolError:
            return

    def _send(self, message: m.Message) -> None:
        self._link.write(*self._connection.send(message))

    # -- reading -----------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        reader = asyncio.create_task(self._read())
        worker = asyncio.create_task(self._work())
        try:
            await asyncio.wait((reader, worker, self._ended), return_when=asyncio.FIRST_COMPLETED)
            if self._ended.done():
                raise self._ended.result()
            for task in (reader, worker):
                if task.done():
                    task.result()
        finally:
            for task in (reader, worker):
                task.cancel()
            await asyncio.gather(reader, worker, return_exceptions=True)

    async def _read(self) -> None:
        while True:
            try:
                async with asyncio.timeout(IDLE_SECONDS):
                    data = await self._link.receive()
            except TimeoutError:
                if self._jobs.empty():
                    raise ProtocolError(Code.TIMEOUT, "the forwarder fell silent") from None
                continue
            if not data:
                return
            now = time.monotonic()
            for event in self._connection.receive_data(data):
                if isinstance(event, m.OpenRun | m.Batch):
                    self._jobs.put_nowait((event, now))
                elif isinstance(event, m.Ping):
                    self._send(m.Pong(event.token))
                elif isinstance(event, m.Report):
                    self._keep_report(event)
                elif isinstance(event, m.Error):
                    raise LinkRefused(Code.parse(event.code), event.text)

    # -- working -----------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        while True:
            message, received = await self._jobs.get()
            if isinstance(message, m.OpenRun):
                await self._open_run(message)
            else:
                await self._store(message, received)
            await self._link.drain()

    async def _open_run(self, ask: m.OpenRun) -> None:
        try:
            answer = await (self._known_run(ask) if ask.producer_id >= 0 else self._new_run(ask))
        except SinkUnavailable as error:
            self.log.warning("cannot open a run", run=ask.run, code=str(error.code), reason=str(error))
            self._send(m.Nack(-1, str(error.code), text=m.fit(str(error))))
            return
        self._run = OpenedRun(ask.run, answer.topic, answer.partition, answer.producer_id, max(ask.producer_epoch, 0))
        self._send(answer)

    async def _new_run(self, ask: m.OpenRun) -> m.Run:
        """Hand out a producer id that nothing was ever stored under."""
        topic = self._topic
        producer_id = await self._shared.sink.new_producer_id()
        identity, stream = self._permit.identity, self._hello.stream
        partition = ask.partition
        if not 0 <= partition < topic.partition_count:
            partition = zlib.crc32((identity + stream).encode()) % topic.partition_count
        grant = self._shared.grants.sign(self._claim(topic.name, partition, producer_id))
        return m.Run(ask.run, topic.name, topic.topic_id, partition, producer_id, grant)

    async def _known_run(self, ask: m.OpenRun) -> m.Run:
        """What the sink has of a run whose grant is shown; the run keeps the topic it was opened for."""
        if not self._shared.grants.honours(ask.grant, self._claim(ask.topic, ask.partition, ask.producer_id)):
            raise SinkUnavailable(Code.NOT_GRANTED, "the grant is not one that this receiver honours")
        topic = await self._shared.sink.topic(ask.topic)
        stored = await self._shared.sink.ask(ask.topic, ask.partition, ask.producer_id)
        known = (-1, -1) if stored is None else (stored.producer_epoch, stored.last_sequence)
        return m.Run(ask.run, topic.name, topic.topic_id, ask.partition, ask.producer_id, ask.grant, *known)

    def _claim(self, topic: str, partition: int, producer_id: int) -> Claim:
        cluster_id = self._shared.sink.cluster_id
        return Claim(self._permit.identity, self._hello.stream, cluster_id, topic, partition, producer_id)

    async def _store(self, batch: m.Batch, received: float) -> None:
        run = self._run
        assert run is not None
        try:
            header = recordbatch.check(batch.payload)
            if header.record_count != batch.record_count:
                raise BatchCorrupt(f"{batch.record_count} records announced, {header.record_count} in the header")
        except BatchCorrupt as error:
            run.next_sequence = None
            self._answer(batch, received, Outcome(Kind.REFUSED, code=Code.CORRUPT, text=str(error)), 0.0)
            return
        self._check_stamp(run, header)
        run.next_sequence = (header.base_sequence + header.record_count) % (1 << 31)
        if run.refusing:
            self._answer(batch, received, Outcome(Kind.REFUSED, code=Code.NOT_TRIED), 0.0)
            return
        started = time.monotonic()
        outcome = await self._shared.sink.produce(run.topic, run.partition, batch.payload)
        sink_seconds = time.monotonic() - started
        if outcome.kind in (Kind.STORED, Kind.DUPLICATE):
            self._keep_batch(run, header, outcome)  # before the answer, which a lost link would prevent
        self._answer(batch, received, outcome, sink_seconds)

    @staticmethod
    def _check_stamp(run: OpenedRun, header: recordbatch.Header) -> None:
        """A batch carries the granted producer, and follows the one before it."""
        if (header.producer_id, header.producer_epoch) != (run.producer_id, run.producer_epoch):
            raise ProtocolError(Code.NOT_GRANTED, "the batch carries another producer than the run's")
        if run.next_sequence is not None and header.base_sequence != run.next_sequence:
            raise ProtocolError(Code.BAD_SEQUENCE, f"base sequence {header.base_sequence}, not {run.next_sequence}")

    def _answer(self, batch: m.Batch, received: float, outcome: Outcome, sink_seconds: float) -> None:
        run, stream, metrics = self._run, self._hello.stream, self._shared.metrics
        assert run is not None
        stored = outcome.kind in (Kind.STORED, Kind.DUPLICATE)
        label = outcome.kind.value if stored else "refused"
        metrics.batches.labels(stream, label).inc()
        metrics.records.labels(stream, label).inc(batch.record_count)
        metrics.bytes.labels(stream, label).inc(len(batch.payload))
        if stored:
            metrics.sink_seconds.labels(stream, self._shared.sink.name).observe(sink_seconds)
            waited = time.monotonic() - received - sink_seconds
            self._send(m.Ack(batch.seq, run.partition, outcome.base_offset, int(waited * 1e6), int(sink_seconds * 1e6)))
            return
        run.refusing = True
        code = outcome.code or Code.UNKNOWN
        if code is not Code.NOT_TRIED:
            self.log.warning("batch not stored", code=str(code), outcome=outcome.kind.value, reason=outcome.text)
        uncertain = outcome.kind is Kind.UNCERTAIN
        permanent = not uncertain and code in _BODIES
        self._send(m.Nack(batch.seq, str(code), uncertain, permanent, m.fit(outcome.text)))

    # -- for the ledger ------------------------------------------------------------------------------------------

    def _keep_batch(self, run: OpenedRun, header: recordbatch.Header, outcome: Outcome) -> None:
        if self._shared.ledger is None:
            return
        hello, facts, offset = self._hello, self._link.facts, outcome.base_offset
        self._shared.ledger.batch(
            BatchEntry(
                time_ms=int(time.time() * 1000),
                stream=hello.stream,
                twin_of=hello.twin_of,
                identity=self._permit.identity,
                forwarder_id=hello.forwarder_id,
                boot_id=hello.boot_id,
                run=run.number,
                producer_id=header.producer_id,
                producer_epoch=header.producer_epoch,
                base_sequence=header.base_sequence,
                records=header.record_count,
                bytes=header.size,
                topic=run.topic,
                partition=run.partition,
                first_offset=offset,
                last_offset=offset + header.last_offset_delta if offset >= 0 else -1,
                outcome="stored" if outcome.kind is Kind.STORED else "duplicate",
                mode=hello.mode,
                group=facts.group,
                tls_version=facts.version,
                session_id=self._id,
            )
        )

    def _keep_report(self, report: m.Report) -> None:
        if self._shared.ledger is None:
            return
        hello = self._hello
        self._shared.ledger.report(
            ReportEntry(
                time_ms=int(time.time() * 1000),
                stream=hello.stream,
                twin_of=hello.twin_of,
                identity=self._permit.identity,
                forwarder_id=hello.forwarder_id,
                boot_id=hello.boot_id,
                run=-1 if self._run is None else self._run.number,
                accepted=report.accepted,
                acknowledged=report.acknowledged,
                dropped=report.dropped,
                dead_lettered=report.dead_lettered,
                resets=report.resets,
            )
        )
