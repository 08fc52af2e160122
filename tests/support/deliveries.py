"""An agent and a receiver in this process, with a real Kafka behind them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec

from bench.kafka import Kafka
from bench.oracle import read_topic
from logfwd.agent import Agent
from logreceiver import config
from logreceiver.grants import Grants
from logreceiver.sinks.kafka import KafkaSink
from streams.definition import FileSource, Stream
from tests.support.crashed import Crash, leave_behind
from tests.support.installation import Installation, forwarding, running
from tests.support.sinks import eventually

DRAIN_SECONDS = 120.0


def sink_settings(kafka: Kafka, *, produce_timeout_seconds: float = 10.0) -> config.KafkaSink:
    return config.KafkaSink(brokers=tuple(kafka.bootstrap.split(",")), produce_timeout_seconds=produce_timeout_seconds)


@asynccontextmanager
async def sink_of(kafka: Kafka) -> AsyncIterator[KafkaSink]:
    """A sink without a receiver around it; producer ids are to be had."""
    sink = KafkaSink(sink_settings(kafka))
    await sink.start()
    try:
        await eventually(sink.new_producer_id)
        yield sink
    finally:
        await sink.close()


@asynccontextmanager
async def delivering(
    installation: Installation, kafka: Kafka, streams: Sequence[Stream], *, produce_timeout_seconds: float = 10.0
) -> AsyncIterator[Agent]:
    """An agent with these streams, whose topics exist."""
    sink = sink_settings(kafka, produce_timeout_seconds=produce_timeout_seconds)
    receiver = msgspec.structs.replace(installation.receiver_config(), sink=sink, ledger=None)
    async with running(receiver) as service:
        forwarder = installation.forwarder_config(service.listeners[0].address, *streams)
        forwarder = msgspec.structs.replace(forwarder, answer_timeout_seconds=produce_timeout_seconds + 5)
        async with forwarding(forwarder) as agent:
            yield agent


def without_input(installation: Installation, crashes: Sequence[Crash]) -> list[Stream]:
    """The streams of crashed agents; nothing new comes."""
    nothing = FileSource(paths=(str(installation.directory / "none.log"),))
    return [installation.stream(name=crash.stream, source=nothing) for crash in crashes]


async def drained(agent: Agent) -> None:
    """Wait until all streams run, and nothing waits in any spool."""
    async with asyncio.timeout(DRAIN_SECONDS):
        while True:
            rows = agent.describe()
            if len(rows) == len(agent.config.streams) and not any(row["spool"]["batches"] for row in rows):
                return
            await asyncio.sleep(0.02)


async def crash_all(
    crashes: Sequence[Crash], installation: Installation, kafka: Kafka, *, reset: bool = False
) -> list[list[memoryview]]:
    """See leave_behind."""
    grants = Grants.load(installation.directory / "pki" / "grant.key")
    state = installation.directory / "state"
    async with sink_of(kafka) as sink:
        return [await leave_behind(crash, state, sink, grants, reset=reset) for crash in crashes]


async def stored(kafka: Kafka, topic: str) -> list[bytes]:
    """What is in a topic, by librdkafka."""
    return await asyncio.to_thread(list, read_topic(kafka.bootstrap, topic))
