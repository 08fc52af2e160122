"""The leader of a partition dies: any state of a window is finished at the next one, and what only the dead one had
is not lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.lab.kafka import Kafka
from bench.lab.kafkatools import KafkaFailed, jars, java
from logreceiver.sinks import Kind, RunState
from logreceiver.sinks import settings as sink_settings
from streams.records.batch import parse_header
from tests.integration.test_resume_matrix import COMBINATIONS, judge, show
from tests.support.cluster import create_topics, leaders
from tests.support.delivery import RECORDS, Way, joined, numbered, way_to
from tests.support.installation import eventually as becomes
from tests.support.kafka import UP_SOONER
from tests.support.patience import PATIENCE_SECONDS

pytestmark = pytest.mark.kafka
REPLICA_FETCH_SECONDS = 0.5
CLUSTER = {
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    # Long enough for a broker that is stopped for a moment to stay in sync, short enough to wait for the next leader.
    "broker.session.timeout.ms": "4000",
    "replica.lag.time.max.ms": "30000",
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """Three brokers as an installation that keeps its promise has them."""
    try:
        java()
        jars()
    except KafkaFailed as error:
        pytest.skip(str(error))
    with Kafka(tmp_path_factory.mktemp("cluster"), brokers=3, overrides=CLUSTER, jvm_options=UP_SOONER) as running:
        yield running


@pytest.mark.chaos
async def test_any_part_of_a_window_is_finished_once_and_in_order_at_the_next_leader(
    cluster: Kafka, tmp_path: Path, topic_name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    topics = [f"{topic_name}-{combination}" for combination in COMBINATIONS]
    await asyncio.to_thread(create_topics, cluster, topics, replicas=[2, 3, 1])
    async with contextlib.AsyncExitStack() as stack:
        way = await stack.enter_async_context(way_to(cluster, tmp_path))

        async def change_leaders() -> None:
            assert await asyncio.to_thread(leaders, cluster, topics) == {2}
            stack.callback(cluster.restart, 2)
            cluster.kill(2)

        count = await judge(way, topic_name, change_leaders)
        assert 2 not in await asyncio.to_thread(leaders, cluster, topics)
    show(capsys, count, "leader killed")


async def test_a_batch_that_only_the_leader_has_is_not_taken_for_stored_and_outlives_the_leader(
    cluster: Kafka, tmp_path: Path, topic_name: str
) -> None:
    await asyncio.to_thread(create_topics, cluster, [topic_name], replicas=[2, 3, 1])
    leader = f"127.0.0.1:{cluster.brokers[1].port}"  # requests for metadata must not wait for a stopped broker
    async with way_to(
        cluster, tmp_path, sink_settings.KafkaSink(brokers=(leader,), produce_timeout_seconds=10.0)
    ) as way:
        async with way.life(topic_name) as life:
            copies = await life.begin(sealed=3, stored=1, acknowledged=1)
            producer_id = parse_header(copies[0]).producer_id
        for follower in (1, 3):
            cluster.pause(follower)
        try:
            await asyncio.sleep(2 * REPLICA_FETCH_SECONDS)  # fetches from before the stop have come to their end
            dying = asyncio.create_task(way.late(topic_name, copies[1]))
            await becomes_known(way, topic_name, producer_id, RunState(0, 2 * RECORDS - 1))
            async with way.life(topic_name) as life, life.sending():
                await becomes(lambda: life.in_flight == 1)
                assert len(life.backlog.rows) == 2
            cluster.kill(2)
            assert (await dying).kind is Kind.UNCERTAIN
        finally:
            for follower in (1, 3):
                cluster.resume(follower)
            if cluster.brokers[1].process is not None:
                cluster.kill(2)
        try:
            assert await way.known(topic_name, producer_id) == RunState(0, RECORDS - 1)
            async with way.life(topic_name) as life:
                await life.finish()
                assert life.backlog.totals.resets == 0
        finally:
            cluster.restart(2)
        assert await way.stored(topic_name) == {topic_name: joined(numbered(0, 1, 2))}


async def becomes_known(way: Way, topic: str, producer_id: int, state: RunState) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await way.known(topic, producer_id) != state:
            await asyncio.sleep(0.01)
