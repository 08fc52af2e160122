"""The two sinks behind one face, so that one suite can hold both to the same contract."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol, TypeVar

from bench.lab.kafka import Kafka
from bench.lab.oracle import read_topic
from logreceiver.sinks import Kind, Outcome, RunState, Sink, TopicInfo
from logreceiver.sinks.log.read import read_records
from logreceiver.sinks.make import make_sink
from logreceiver.sinks.settings import KafkaSink, LogSink
from streams.errors import Code, SinkUnavailable
from streams.records.batch import iterate, parse_header
from tests.support.model_broker import ModelBroker, Produce
from tests.support.patience import PATIENCE_SECONDS

T = TypeVar("T")


class Harness(Protocol):
    """A started sink, and what can happen to it."""

    sink: Sink

    async def restart(self) -> None:
        """Close the sink and start another one over the same data."""

    async def crash(self) -> None:
        """kill -9 of whatever keeps the data, as far as a test can; the sink is ready again afterwards."""

    def values(self, topic: str) -> list[bytes]:
        """What is stored, read by other code than the sink's."""


class LogHarness:
    """The embedded log in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.settings = LogSink(directory=directory, max_segment_bytes=4096)
        self.sink = make_sink(self.settings)

    async def restart(self) -> None:
        await self.sink.close()
        self.sink = make_sink(self.settings)
        await self.sink.start()

    async def crash(self) -> None:
        await self.restart()

    def values(self, topic: str) -> list[bytes]:
        return [record.value or b"" for record in read_records(self._directory, topic)]


class KafkaHarness:
    """A real broker, which other tests use as well."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self.settings = KafkaSink(brokers=tuple(kafka.bootstrap.split(",")), create_topics=True)
        self.sink = make_sink(self.settings)

    async def restart(self) -> None:
        await self.sink.close()
        self.sink = make_sink(self.settings)
        await self.sink.start()

    async def crash(self) -> None:
        self._kafka.restart(1)  # in this thread: a child dies with the thread that started it
        await eventually(self.sink.new_producer_id)

    def values(self, topic: str) -> list[bytes]:
        return list(read_topic(self._kafka.internal, topic))


class ModelHarness:
    """The simulated broker of the resume rules, as a sink: it must answer about producers as the real ones do."""

    def __init__(self) -> None:
        self._broker = ModelBroker()
        self.sink: Sink = _ModelSink(self._broker)

    async def restart(self) -> None:
        self._broker.restart()

    async def crash(self) -> None:
        self._broker.restart()

    def values(self, topic: str) -> list[bytes]:
        return [b'{"n":%d}' % number for number in self._broker.log]


class _ModelSink:
    name = "model"
    cluster_id = "model"

    def __init__(self, broker: ModelBroker) -> None:
        self._broker = broker

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def health(self) -> dict[str, str]:
        return {}

    async def topic(self, name: str) -> TopicInfo:
        return TopicInfo(name, "id", 1, 1 << 20)

    async def find(self, name: str) -> TopicInfo | None:
        return await self.topic(name)

    async def new_producer_id(self) -> int:
        return self._broker.new_producer_id()

    async def ask(self, topic: str, partition: int, producer_id: int) -> RunState | None:
        epoch, last_sequence = self._broker.ask(producer_id)
        return None if epoch < 0 else RunState(epoch, last_sequence)

    async def produce(self, topic: str, partition: int, made: memoryview) -> Outcome:
        header = parse_header(made)
        rows = tuple(json.loads(record.value or b"")["n"] for record in iterate(made, max_bytes=1 << 20))
        end = len(self._broker.log)
        batch = Produce(header.producer_id, header.producer_epoch, header.base_sequence, rows)
        code = self._broker.produce(batch)
        if code is not None:
            return Outcome(Kind.REFUSED, code=code)
        if len(self._broker.log) > end:
            return Outcome(Kind.STORED, end)
        return Outcome(Kind.DUPLICATE, self._broker.log.index(rows[0]))


class Unsteady:
    """A sink behind a network that follows a script: (does the batch arrive?, the answer that gets through).

    None as an answer is the sink's own; after the script all goes well. While `away`, nothing but `produce` answers.
    """

    name = "unsteady"

    def __init__(self, sink: Sink, script: list[tuple[bool, Outcome | None]]) -> None:
        self._sink = sink
        self._script = script
        self.produced = 0
        self.max_message_bytes = 1 << 20
        self.partition_count = 1
        self.away = False

    @property
    def cluster_id(self) -> str:
        return self._sink.cluster_id

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def health(self) -> dict[str, str]:
        return {}

    def _check(self) -> None:
        if self.away:
            raise SinkUnavailable(Code.UNAVAILABLE, "no broker answers")

    async def topic(self, name: str) -> TopicInfo:
        self._check()
        found = await self._sink.topic(name)
        return TopicInfo(name, found.topic_id, self.partition_count, self.max_message_bytes)

    async def find(self, name: str) -> TopicInfo | None:
        return await self.topic(name)

    async def new_producer_id(self) -> int:
        self._check()
        return await self._sink.new_producer_id()

    async def ask(self, topic: str, partition: int, producer_id: int) -> RunState | None:
        self._check()
        return await self._sink.ask(topic, partition, producer_id)

    async def produce(self, topic: str, partition: int, made: memoryview) -> Outcome:
        self.produced += 1
        arrives, heard = self._script.pop(0) if self._script else (True, None)
        said = await self._sink.produce(topic, partition, made) if arrives else None
        outcome = heard or said
        assert outcome is not None
        return outcome


async def eventually(call: Callable[[], Awaitable[T]]) -> T:
    """The answer, once the sink is available."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                return await call()
            except SinkUnavailable:
                await asyncio.sleep(0.1)
