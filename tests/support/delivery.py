"""The way of a stream's batches from its spool to Kafka, in the hands of a test: spool, sender, link and receiver are
the real ones; what lacks is a source, so that a test says what is sealed, stamped, stored and acknowledged when it all
breaks off. A `Life` is one life of the forwarder; the next one on the same file knows what was committed."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path

import msgspec

from bench.lab.kafka import Kafka
from bench.lab.oracle import read_topic
from logfwd.definition import Stream
from logfwd.links.delivery import Delivery
from logfwd.links.sender import Sender
from logfwd.metrics import ForwarderMetrics
from logfwd.spool.notes import Notes
from logfwd.spool.rows import Row, Run
from logfwd.spool.store import Spool
from logreceiver import config
from logreceiver.links.grants import Claim, Grants
from logreceiver.sinks import Kind, Outcome, RunState
from logreceiver.sinks import settings as sink_settings
from logreceiver.sinks.kafka.sink import KafkaSink
from streams.errors import Code
from streams.records.batch import Codec, Packed, build, parse_header
from streams.security import stacks
from streams.security.connecting import connect
from streams.security.modes import MODES
from streams.security.transport import Link
from streams.telemetry.metrics import CollectorRegistry
from tests.support.installation import Installation, running
from tests.support.patience import PATIENCE_SECONDS
from tests.support.sinks import eventually
from tests.support.tls import FORWARDER

MODE = "hybrid"
RECORDS = 3
ANSWER_SECONDS = 60.0


class Life:
    """One life of one stream's forwarder. Numbers count batches of RECORDS records; a record contains its number."""

    def __init__(self, way: Way, stream: str, spool: Spool) -> None:
        self._way = way
        self._spool = spool
        self.stream = stream
        self.backlog = spool.backlog(stream, max_bytes=1 << 30, drops_oldest=False)
        self.delivery = Delivery(
            Stream(name=stream, security=MODE),
            self.backlog,
            spool,
            way.metrics,
            boot_id=uuid.uuid4().hex,
            answer_timeout_seconds=ANSWER_SECONDS,
        )
        self.sender = Sender(self.delivery, way.connect)

    async def seal(self, *batches: Sequence[bytes], age_seconds: float = 0.0) -> list[Row]:
        """Commit batches as sealing does, each in a transaction of its own."""
        made: list[Row] = []
        for values in batches:
            at_ms = int((time.time() - age_seconds) * 1000)
            payload = build(values, timestamp_ms=at_ms, codec=Codec.NONE)
            made += await self.accept(payload)
        return made

    async def accept(self, payload: bytes) -> list[Row]:
        """Commit one batch that is built already."""
        packed, notes = Packed(payload, parse_header(payload).record_count, len(payload)), Notes()
        blob = self._spool.blobs.add(payload, notes)
        rows = self.backlog.accept([packed], [blob], 0, 1.0, notes)
        await self._spool.commit(notes)
        for row in rows:
            row.committed_at, row.payload = 1.0, None
        return rows

    async def open_run(self) -> Run:
        """What a receiver's RUN and the stamping behind it leave in the spool; nothing is sent."""
        run, way = self.backlog.head_run(), self._way
        assert run is not None
        topic = await eventually(lambda: way.sink.topic(self.stream))
        producer_id = await eventually(way.sink.new_producer_id)
        claim = Claim(FORWARDER, self.stream, way.sink.cluster_id, self.stream, 0, producer_id)
        granted = Run(
            run.number, claim.cluster_id, claim.topic, topic.topic_id, 0, producer_id, grant=way.grants.sign(claim)
        )
        notes = Notes()
        self.backlog.grant(run, granted, notes)
        self.backlog.stamp(run, notes)
        await self._spool.commit(notes)
        return run

    async def copy(self, row: Row) -> memoryview:
        """The bytes that go over the wire for a stamped batch: what a receiver that dies may still hold."""
        run = self.backlog.runs[row.run]
        return memoryview(await self.delivery.stamped_payload(row, run, int(time.time() * 1000)))

    async def store(self, *rows: Row) -> None:
        """Batches reach the broker, their acknowledgements nobody."""
        for row in rows:
            copy = await self.copy(row)
            async with asyncio.timeout(PATIENCE_SECONDS):
                while (outcome := await self._way.late(self.stream, copy)).code is Code.TIMED_OUT:
                    await asyncio.sleep(0.1)  # the followers of a new topic get to know of it
            assert outcome.kind in (Kind.STORED, Kind.DUPLICATE), outcome

    async def begin(self, *, sealed: int, stored: int = 0, acknowledged: int = 0) -> list[memoryview]:
        """Seal and stamp batches 0, 1, …; store the first, acknowledge the first of these; returns copies of all."""
        rows = await self.seal(*numbered(*range(sealed)))
        await self.open_run()
        copies = [await self.copy(row) for row in rows]
        await self.store(*rows[:stored])
        for row in rows[:acknowledged]:
            await self.acknowledge(row)
        return copies

    @property
    def in_flight(self) -> int:
        """Batches that were sent and not answered."""
        conversation = self.sender._conversation
        return 0 if conversation is None else len(conversation._in_flight)

    async def acknowledge(self, row: Row) -> None:
        """An acknowledgement that came in time to be committed."""
        notes = Notes()
        self.backlog.acknowledge(row, notes)
        await self._spool.commit(notes)

    async def finish(self, *, seconds: float = 90.0) -> None:
        """The real sender, over a real link, until nothing waits."""
        async with self.sending() as sending, asyncio.timeout(seconds):
            while self.backlog.rows:
                if sending.done():
                    sending.result()
                await asyncio.sleep(0.01)
            self.sender.stop()
            await sending

    @contextlib.asynccontextmanager
    async def sending(self) -> AsyncIterator[asyncio.Task[None]]:
        """The sender at work; it is killed when the block ends."""
        task = asyncio.create_task(self.sender.run())
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


class Way:
    """A receiver on a Kafka, spools in a directory, and a sink that stands for receivers that died."""

    def __init__(self, kafka: Kafka, installation: Installation, address: str, sink: KafkaSink) -> None:
        self.kafka = kafka
        self.sink = sink
        self.metrics = ForwarderMetrics(CollectorRegistry())
        self.grants = Grants.load(installation.directory / "pki" / "grant.key")
        self.directory = installation.directory
        self.credentials = installation.parties.forwarder
        self._address = address
        self._party = stacks.client(MODES[MODE], self.credentials)

    async def connect(self) -> Link:
        return await connect(self._address, self._party, server_name="localhost")

    @contextlib.asynccontextmanager
    async def life(self, stream: str) -> AsyncIterator[Life]:
        """The next life of a stream's forwarder; the end of the block is its end."""
        async with Spool(self.spool(stream)) as spool:
            yield Life(self, stream, spool)

    def spool(self, stream: str) -> Path:
        return self.directory / "state" / f"{stream}.spool"

    async def late(self, topic: str, batch: memoryview) -> Outcome:
        """A copy that a receiver hands to the broker, whether anybody still waits for it or not."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                outcome = await self.sink.produce(topic, 0, batch)
                if (outcome.kind, outcome.code) != (Kind.REFUSED, Code.UNAVAILABLE):
                    return outcome
                await asyncio.sleep(0.1)  # a leader that has just come up may not know yet that it is one

    async def known(self, topic: str, producer_id: int) -> RunState | None:
        """What the broker knows of a producer, once there is one that answers."""
        return await eventually(lambda: self.sink.ask(topic, 0, producer_id))

    async def restart_broker(self) -> None:
        """kill -9; it is back and answers."""
        self.kafka.restart()
        await eventually(self.sink.new_producer_id)

    async def stored(self, *topics: str) -> dict[str, list[bytes]]:
        """What the topics hold, read by librdkafka."""

        def read() -> dict[str, list[bytes]]:
            return {topic: list(read_topic(self.kafka.internal, topic)) for topic in topics}

        return await asyncio.to_thread(read)


@contextlib.asynccontextmanager
async def way_to(
    kafka: Kafka, directory: Path, settings: sink_settings.KafkaSink | None = None, *, topic: str = "{stream}"
) -> AsyncIterator[Way]:
    """A receiver that serves any stream; without settings of one's own it creates the topics that are not there."""
    installation = Installation(directory)
    if settings is None:
        settings = sink_settings.KafkaSink(
            brokers=tuple(kafka.bootstrap.split(",")), create_topics=True, produce_timeout_seconds=10.0
        )
    base = installation.receiver_config()
    receiver = msgspec.structs.replace(
        base,
        allow=tuple(msgspec.structs.replace(rule, topic=topic) for rule in base.allow),
        sink=settings,
        ledger=None,
        limits=config.Limits(max_links_per_identity=1000, max_memory_bytes=1 << 33),
    )
    sink = KafkaSink(settings)
    await sink.start()
    try:
        async with running(receiver) as service:
            yield Way(kafka, installation, service.listeners[0].address, sink)
    finally:
        await sink.close()


def numbered(*numbers: int) -> list[list[bytes]]:
    """The records of batches."""
    return [[b'{"n":%d}' % record for record in range(RECORDS * n, RECORDS * (n + 1))] for n in numbers]


def joined(batches: Iterable[Sequence[bytes]]) -> list[bytes]:
    return [value for values in batches for value in values]
