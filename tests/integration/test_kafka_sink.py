"""The Kafka sink against a real broker that dies, hangs, is slow, or has topics it should not have."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bench.lab.kafka import Kafka
from bench.lab.oracle import read_topic
from logreceiver.sinks import Kind, Outcome, RunState
from logreceiver.sinks import settings as sink_settings
from logreceiver.sinks.kafka import sink as kafka_sink
from logreceiver.sinks.kafka.client import Cluster
from logreceiver.sinks.kafka.sink import KafkaSink
from streams.errors import Code, SinkUnavailable
from streams.records.batch import Codec, build, stamp
from tests.support.batches import batch, values
from tests.support.cluster import create_topics
from tests.support.kafka import UP_SOONER
from tests.support.patience import PATIENCE_SECONDS
from tests.support.sinks import eventually

pytestmark = pytest.mark.kafka
HOUR_MS = 3_600_000
AWAY = (Code.UNAVAILABLE, Code.TOPIC_MISSING, Code.TIMED_OUT)


@asynccontextmanager
async def opened(
    kafka: Kafka, *, produce_timeout_seconds: float = 30.0, create_topics: bool = True
) -> AsyncIterator[KafkaSink]:
    brokers = tuple(kafka.bootstrap.split(","))
    sink = KafkaSink(
        sink_settings.KafkaSink(
            brokers=brokers, produce_timeout_seconds=produce_timeout_seconds, create_topics=create_topics
        )
    )
    await sink.start()
    try:
        yield sink
    finally:
        await sink.close()


async def stored_values(kafka: Kafka, topic: str) -> list[bytes]:
    return await asyncio.to_thread(lambda: list(read_topic(kafka.internal, topic)))


async def answered(produce: Callable[[], Awaitable[Outcome]]) -> Outcome:
    """What the broker says of a batch that is sent until it can: who was away, or too busy, leads nothing at first."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (outcome := await produce()).code in AWAY:
            await asyncio.sleep(0.1)
    return outcome


# -- brokers that fail -----------------------------------------------------------------------------------------


async def test_a_sink_starts_without_its_broker_says_so_and_works_when_it_comes(
    kafka: Kafka, topic_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_sink, "START_SECONDS", 0.5)
    kafka.kill()
    try:
        async with asyncio.timeout(PATIENCE_SECONDS) as limit, opened(kafka) as sink:
            limit.reschedule(None)  # it has started
            assert "kafka" in sink.health()
            for call in (sink.topic(topic_name), sink.new_producer_id(), sink.ask(topic_name, 0, 1)):
                with pytest.raises(SinkUnavailable) as caught:
                    await call
                assert caught.value.code is Code.UNAVAILABLE
            refused = await sink.produce(topic_name, 0, batch(1, 0))
            assert (refused.kind, refused.code) == (Kind.REFUSED, Code.UNAVAILABLE)
            kafka.launch()
            await eventually(lambda: sink.topic(topic_name))
            assert sink.health() == {}
            assert sink.cluster_id
    finally:
        kafka.restart()


async def test_a_broker_that_hangs_leaves_a_batch_uncertain_and_asking_settles_it(
    kafka: Kafka, topic_name: str
) -> None:
    async with opened(kafka, produce_timeout_seconds=1.0) as sink:
        await eventually(lambda: sink.topic(topic_name))
        producer_id = await eventually(sink.new_producer_id)
        await answered(lambda: sink.produce(topic_name, 0, batch(producer_id, 0)))
        kafka.pause()
        try:
            outcome = await sink.produce(topic_name, 0, batch(producer_id, 10))
        finally:
            kafka.resume()
        assert (outcome.kind, outcome.code) == (Kind.UNCERTAIN, Code.TIMED_OUT)
        state = await eventually(lambda: sink.ask(topic_name, 0, producer_id))
        assert state in (RunState(0, 9), RunState(0, 19))
        again = await answered(lambda: sink.produce(topic_name, 0, batch(producer_id, 10)))
        assert again.base_offset == 10
    assert await stored_values(kafka, topic_name) == values(20)


async def test_a_broker_killed_in_the_middle_of_a_stream_loses_and_repeats_nothing(
    kafka: Kafka, topic_name: str
) -> None:
    batches = 400
    async with opened(kafka) as sink:
        await eventually(lambda: sink.topic(topic_name))
        producer_id = await eventually(sink.new_producer_id)
        sequence, kinds, kills = 0, set(), [1000, 2500]
        while sequence < 10 * batches:
            if kills and sequence == kills[0]:
                del kills[0]
                asyncio.get_running_loop().call_later(0.005, kafka.kill)
            outcome = await sink.produce(topic_name, 0, batch(producer_id, sequence))
            kinds.add(outcome.kind)
            if outcome.kind in (Kind.STORED, Kind.DUPLICATE):
                sequence += 10
                continue
            process = kafka.brokers[0].process
            if process is not None and process.poll() is not None:
                kafka.restart()
            state = await eventually(lambda: sink.ask(topic_name, 0, producer_id))
            last = -1 if state is None else state.last_sequence  # a busy broker may refuse the very first batch
            assert last in (sequence - 1, sequence + 9)
        assert kinds & {Kind.UNCERTAIN, Kind.REFUSED}
    assert await stored_values(kafka, topic_name) == values(10 * batches)


async def test_a_partition_that_waits_for_a_stopped_follower_holds_up_no_other(tmp_path: Path) -> None:
    patient = {"broker.session.timeout.ms": "60000", "replica.lag.time.max.ms": "60000"}
    async with Kafka(tmp_path, brokers=2, overrides=patient, jvm_options=UP_SOONER) as kafka:
        await asyncio.to_thread(create_topics, kafka, ["stuck"], replicas=(1, 2))
        await asyncio.to_thread(create_topics, kafka, ["quick"], partitions=8)
        async with opened(kafka, create_topics=False) as sink:
            for name in ("stuck", "quick"):
                await eventually(lambda: sink.topic(name))  # noqa: B023
            ids = [await eventually(sink.new_producer_id) for _ in range(9)]
            await answered(lambda: sink.produce("stuck", 0, batch(ids[8], 0)))
            kafka.pause(2)
            stuck = [asyncio.ensure_future(sink.produce("stuck", 0, batch(ids[8], 10)))]
            slowest = 0.0
            for number in range(20):
                started = time.monotonic()
                made = [sink.produce("quick", one, batch(ids[one], 10 * number)) for one in range(8)]
                assert {outcome.kind for outcome in await asyncio.gather(*made)} == {Kind.STORED}
                slowest = max(slowest, time.monotonic() - started)
                await asyncio.sleep(0.1)
            assert slowest < 15, "half as long as anybody waits for the follower"
            assert not stuck[0].done()
            kafka.resume(2)
            assert await stuck[0] == Outcome(Kind.STORED, 10)


# -- topics ----------------------------------------------------------------------------------------------------


async def test_a_missing_topic_is_reported_and_is_not_created_unasked(kafka: Kafka, topic_name: str) -> None:
    async with opened(kafka, create_topics=False) as sink:
        for _ in range(2):
            with pytest.raises(SinkUnavailable) as caught:
                await sink.topic(topic_name)
            assert caught.value.code is Code.TOPIC_MISSING
        refused = await sink.produce(topic_name, 0, batch(1, 0))
        assert (refused.kind, refused.code) == (Kind.REFUSED, Code.TOPIC_MISSING)


@pytest.mark.parametrize(
    "setting", [{"cleanup.policy": "compact"}, {"min.insync.replicas": "2"}], ids=lambda setting: next(iter(setting))
)
async def test_a_topic_that_cannot_hold_batches_safely_is_refused_with_the_setting_named(
    kafka: Kafka, topic_name: str, setting: dict[str, str]
) -> None:
    await asyncio.to_thread(create_topics, kafka, [topic_name], configs=setting)
    async with opened(kafka) as sink:
        with pytest.raises(SinkUnavailable, match=next(iter(setting))):
            await sink.topic(topic_name)
        assert f"topic {topic_name}" in sink.health()


async def test_a_topics_own_limit_is_reported_and_a_repeat_on_logappendtime_is_still_stored_once(
    kafka: Kafka, topic_name: str
) -> None:
    settings = {"message.timestamp.type": "LogAppendTime", "max.message.bytes": "5000"}
    await asyncio.to_thread(create_topics, kafka, [topic_name], partitions=3, configs=settings)
    async with opened(kafka) as sink:
        info = await eventually(lambda: sink.topic(topic_name))
        assert (info.partition_count, info.max_message_bytes) == (3, 5000)
        producer_id = await eventually(sink.new_producer_id)
        large = batch(producer_id, 0, records=[b"x" * 6000], codec=Codec.NONE)
        assert (await answered(lambda: sink.produce(topic_name, 1, large))).code is Code.TOO_LARGE
        answers = [await answered(lambda: sink.produce(topic_name, 1, batch(producer_id, 0))) for _ in range(2)]
        assert answers == [Outcome(Kind.STORED, 0)] * 2
    assert await stored_values(kafka, topic_name) == values(10)


async def test_timestamps_far_ahead_are_refused_with_the_code_for_clocks(kafka: Kafka, topic_name: str) -> None:
    async with opened(kafka) as sink:
        await eventually(lambda: sink.topic(topic_name))
        ahead = build(values(3), timestamp_ms=int(time.time() * 1000) + 2 * HOUR_MS, codec=Codec.ZSTD)
        stamped = stamp(ahead, producer_id=await eventually(sink.new_producer_id), producer_epoch=0, base_sequence=0)
        outcome = await answered(lambda: sink.produce(topic_name, 0, memoryview(stamped)))
        assert (outcome.kind, outcome.code) == (Kind.REFUSED, Code.CLOCK)


async def test_one_query_answers_all_concurrent_callers_about_a_partition(
    kafka: Kafka, topic_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(kafka) as sink:
        await eventually(lambda: sink.topic(topic_name))
        ids = [await eventually(sink.new_producer_id) for _ in range(20)]
        for producer_id in ids:
            await answered(lambda: sink.produce(topic_name, 0, batch(producer_id, 0)))  # noqa: B023
        calls = 0
        real = Cluster.call

        async def counted(self: Cluster, node: int, request: object) -> object:
            nonlocal calls
            calls += 1
            return await real(self, node, request)

        monkeypatch.setattr(Cluster, "call", counted)
        answers = await asyncio.gather(*(sink.ask(topic_name, 0, producer_id) for producer_id in ids))
        assert answers == [RunState(0, 9)] * 20
        assert calls == 1
