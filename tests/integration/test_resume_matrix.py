"""The resume rule against real brokers, whole: whatever was stored of a window, each record is there once in the end.

Every combination of 1 to 5 unanswered batches, 0 to 5 of them stored, acknowledgements before them committed or lost,
across a clean restart of the broker, kill -9 of it, and a change of leader. All combinations of one event are streams
of one agent: one event, one drain.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from bench.kafka import Kafka
from bench.oracle import read_topic
from logreceiver import config
from logreceiver.grants import Grants
from logreceiver.sinks.kafka import KafkaSink
from streams.definition import FileSource
from tests.support.crashed import Crash, leave_behind
from tests.support.installation import Installation, forwarding, running
from tests.support.sinks import eventually

pytestmark = pytest.mark.kafka
DRAIN_SECONDS = 120.0
LEADER = 2


def matrix(event: str) -> list[Crash]:
    return [
        Crash(sent, stored, acknowledgements_committed=committed, event=event)
        for sent in range(1, 6)
        for stored in range(sent + 1)
        for committed in (True, False)
    ]


def create_topics(crashes: list[Crash], kafka: Kafka, replicas: list[int]) -> None:
    """One for each combination; the first replica leads."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    settings = {"min.insync.replicas": str(max(len(replicas) - 1, 1))}
    topics = [NewTopic(crash.stream, 1, replica_assignment=[replicas], config=settings) for crash in crashes]
    for made in admin.create_topics(topics).values():
        made.result()


def sink_settings(kafka: Kafka) -> config.KafkaSink:
    return config.KafkaSink(brokers=tuple(kafka.bootstrap.split(",")))


@asynccontextmanager
async def sink_of(kafka: Kafka) -> AsyncIterator[KafkaSink]:
    sink = KafkaSink(sink_settings(kafka))
    await sink.start()
    try:
        yield sink
    finally:
        await sink.close()


async def crash_everywhere(crashes: list[Crash], installation: Installation, kafka: Kafka) -> None:
    grants = Grants.load(installation.directory / "pki" / "grant.key")
    async with sink_of(kafka) as sink:
        await eventually(sink.new_producer_id)
        for crash in crashes:
            await leave_behind(crash, installation.directory / "state", sink, grants)


async def drain(crashes: list[Crash], installation: Installation, kafka: Kafka) -> dict[str, Any]:
    """An agent with a stream for each combination, and a receiver, until nothing waits; the streams' own accounts."""
    receiver = msgspec.structs.replace(installation.receiver_config(), sink=sink_settings(kafka), ledger=None)
    empty = FileSource(paths=(str(installation.directory / "none.log"),))
    streams = [installation.stream(name=crash.stream, source=empty) for crash in crashes]
    async with running(receiver) as service:
        forwarder = installation.forwarder_config(service.listeners[0].address, *streams)
        async with forwarding(forwarder) as agent, asyncio.timeout(DRAIN_SECONDS):
            while any(row["spool"]["batches"] for row in agent.describe()) or len(agent.describe()) < len(crashes):
                await asyncio.sleep(0.05)
            return {row["stream"]: row for row in agent.describe()}


async def judge(crashes: list[Crash], rows: dict[str, Any], kafka: Kafka) -> None:
    for crash in crashes:
        assert await asyncio.to_thread(list, read_topic(kafka.bootstrap, crash.stream)) == crash.records
        assert rows[crash.stream]["resets"] == 0, crash


@pytest.mark.parametrize("event", ["clean-restart", "kill-9"])
async def test_every_window_is_finished_after_a_restart_of_the_broker(
    installation: Installation, kafka: Kafka, event: str
) -> None:
    crashes = matrix(event)
    create_topics(crashes, kafka, [1])
    await crash_everywhere(crashes, installation, kafka)
    kafka.restart(clean=event == "clean-restart")
    await judge(crashes, await drain(crashes, installation, kafka), kafka)


async def test_every_window_is_finished_after_a_change_of_leader(installation: Installation, tmp_path: Path) -> None:
    crashes = matrix("leader-change")
    async with Kafka(tmp_path / "kafka", brokers=3) as kafka:
        create_topics(crashes, kafka, [LEADER, 3, 1])
        await crash_everywhere(crashes, installation, kafka)
        kafka.kill(LEADER)
        await judge(crashes, await drain(crashes, installation, kafka), kafka)
