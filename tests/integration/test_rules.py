"""Cases of exactly-once delivery that an ordinary client gets wrong, each against a real broker.

docs/delivery.md says which rule each of them shows. What a model shows faster is in tests/logfwd/test_resume_model.py.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bench.kafka import Kafka
from logfwd.agent import Agent
from logreceiver.sinks import Kind
from streams.definition import BatchLimits, Stream
from streams.errors import Code
from tests.support import topics
from tests.support.crashed import Crash
from tests.support.deliveries import crash_all, delivering, drained, sink_of, stored, without_input
from tests.support.installation import Events, Installation, acknowledged, eventually, found, lines

pytestmark = pytest.mark.kafka


def encoded(texts: list[str]) -> list[bytes]:
    return [text.encode() for text in texts]


@asynccontextmanager
async def live(
    installation: Installation, kafka: Kafka, name: str, *, produce_timeout_seconds: float = 10.0, **changes: object
) -> AsyncIterator[Agent]:
    """One stream that reads the installation's file."""
    stream: Stream = installation.stream(name=name, **changes)
    async with delivering(installation, kafka, [stream], produce_timeout_seconds=produce_timeout_seconds) as agent:
        yield agent


async def send(installation: Installation, agent: Agent, name: str, first: int, count: int) -> None:
    """Write records and wait until all so far are acknowledged."""
    installation.append(*lines(count, first))
    await eventually(lambda: acknowledged(agent, name) == first + count, seconds=40)


# -- what a broker remembers (rules 9, 14) -----------------------------------------------------------------------


@pytest.mark.parametrize("age_hours", [25, 48, -2])
async def test_records_read_long_ago_or_by_a_fast_clock_do_not_make_a_broker_forget_their_producer(
    installation: Installation, kafka: Kafka, age_hours: float
) -> None:
    """A broker lets a producer expire by the timestamps of its batches, at the latest when it restarts."""
    crash = Crash(sent=5, stored=3, event=f"age-{age_hours}", age_hours=age_hours)
    topics.create(kafka, [crash.stream])
    await crash_all([crash], installation, kafka)
    kafka.restart()
    async with delivering(installation, kafka, without_input(installation, [crash])) as agent:
        await drained(agent)
        assert agent.describe()[0]["resets"] == 0
    assert await stored(kafka, crash.stream) == crash.records


async def test_a_producer_that_expired_while_nothing_was_sent_goes_on(
    installation: Installation, tmp_path: Path
) -> None:
    quick = {"producer.id.expiration.ms": "1500", "producer.id.expiration.check.interval.ms": "300"}
    async with Kafka(tmp_path / "kafka", overrides=quick) as kafka:
        topics.create(kafka, ["idle"])
        async with live(installation, kafka, "idle") as agent:
            await send(installation, agent, "idle", 0, 100)
            await asyncio.sleep(4)
            await send(installation, agent, "idle", 100, 100)
            assert agent.describe()[0]["resets"] == 0
        assert await stored(kafka, "idle") == encoded(lines(200))


async def test_beyond_the_expiry_of_a_producer_unanswered_batches_are_there_at_least_once(
    installation: Installation, tmp_path: Path
) -> None:
    quick = {"producer.id.expiration.ms": "1500", "producer.id.expiration.check.interval.ms": "300"}
    crash = Crash(sent=5, stored=3, event="expired")
    async with Kafka(tmp_path / "kafka", overrides=quick) as kafka:
        topics.create(kafka, [crash.stream])
        await crash_all([crash], installation, kafka)
        await asyncio.sleep(4)
        async with delivering(installation, kafka, without_input(installation, [crash])) as agent:
            await drained(agent)
        values = await stored(kafka, crash.stream)
    assert set(values) == set(crash.records)
    assert len(values) == len(crash.records) + 3 * 7  # what was stored and not acknowledged


# -- what is not replicated (rules 7, 9) -------------------------------------------------------------------------


async def test_a_batch_that_only_the_leader_has_is_not_taken_for_stored(
    installation: Installation, tmp_path: Path
) -> None:
    """The leader counts it when it is asked; its follower was stopped and has not got it; then the leader dies."""
    patient = {"broker.session.timeout.ms": "9000", "replica.lag.time.max.ms": "60000"}
    async with Kafka(tmp_path / "kafka", brokers=3, overrides=patient) as kafka:
        topics.create(kafka, ["lag"], replicas=[2, 3], settings={"min.insync.replicas": "1"})
        async with live(installation, kafka, "lag", produce_timeout_seconds=1.0) as agent:
            await send(installation, agent, "lag", 0, 100)
            kafka.pause(3)
            installation.append(*lines(100, 100))
            await asyncio.sleep(4)  # it is refused as uncertain, and asked for
            assert acknowledged(agent, "lag") == 100
            kafka.kill(2)
            kafka.resume(3)
            await eventually(lambda: acknowledged(agent, "lag") == 200, seconds=60)
            assert agent.describe()[0]["resets"] == 0
        assert await stored(kafka, "lag") == encoded(lines(200))


# -- late copies, resets (rules 9, 11) ---------------------------------------------------------------------------


async def test_late_copies_of_a_dead_receiver_change_nothing_before_or_after_a_restart_of_the_broker(
    installation: Installation, kafka: Kafka
) -> None:
    crash = Crash(sent=5, stored=2, event="late")
    topics.create(kafka, [crash.stream])
    (batches,) = await crash_all([crash], installation, kafka)
    async with delivering(installation, kafka, without_input(installation, [crash])) as agent:
        await drained(agent)
    for restart in (False, True):
        if restart:
            kafka.restart()
        async with sink_of(kafka) as sink:
            await sink.topic(crash.stream)
            outcomes = [await sink.produce(crash.stream, 0, batch) for batch in batches]
        assert all(o.kind is Kind.DUPLICATE or o.code is Code.OUT_OF_ORDER for o in outcomes)
    assert await stored(kafka, crash.stream) == crash.records


async def test_a_crash_between_the_commit_of_a_reset_and_its_first_byte_loses_nothing_and_late_copies_are_fenced(
    installation: Installation, kafka: Kafka
) -> None:
    crash = Crash(sent=5, stored=0, event="reset")
    topics.create(kafka, [crash.stream])
    (batches,) = await crash_all([crash], installation, kafka, reset=True)
    async with delivering(installation, kafka, without_input(installation, [crash])) as agent:
        await drained(agent)
        assert agent.describe()[0]["resets"] == 1
    async with sink_of(kafka) as sink:
        await sink.topic(crash.stream)
        assert {(await sink.produce(crash.stream, 0, batch)).code for batch in batches} == {Code.FENCED}
    assert await stored(kafka, crash.stream) == crash.records


async def test_a_late_copy_that_outruns_a_reset_is_there_twice_and_nothing_is_lost(
    installation: Installation, kafka: Kafka
) -> None:
    """The one race that is left, after the time limits of everyone: said in the promise, counted as a reset."""
    crash = Crash(sent=3, stored=0, event="outrun")
    topics.create(kafka, [crash.stream])
    (batches,) = await crash_all([crash], installation, kafka, reset=True)
    async with sink_of(kafka) as sink:
        await sink.topic(crash.stream)
        assert (await sink.produce(crash.stream, 0, batches[crash.acknowledged])).kind is Kind.STORED
    async with delivering(installation, kafka, without_input(installation, [crash])) as agent:
        await drained(agent)
        assert agent.describe()[0]["resets"] == 1
    values = await stored(kafka, crash.stream)
    assert set(values) == set(crash.records)
    assert len(values) == len(crash.records) + 7


# -- topics that change (rules 6, 10, 11) ------------------------------------------------------------------------


async def test_a_topic_that_takes_smaller_batches_than_before_gets_halves_in_their_place(
    installation: Installation, kafka: Kafka, topic_name: str
) -> None:
    """The first batch of a new producer is refused; those behind it must not slip past it."""
    topics.create(kafka, [topic_name])
    async with live(installation, kafka, topic_name) as agent:
        await send(installation, agent, topic_name, 0, 500)
    topics.alter(kafka, topic_name, "max.message.bytes", "2000")
    async with live(installation, kafka, topic_name, codec="none") as agent:
        await send(installation, agent, topic_name, 500, 500)
        (row,) = agent.describe()
        assert (row["resets"], row["records"]["dead_lettered"]) == (0, 0)
    assert await stored(kafka, topic_name) == encoded(lines(1000))


async def test_what_a_topic_could_not_take_is_requeued_when_it_can(
    installation: Installation, kafka: Kafka, topic_name: str, events: Events
) -> None:
    giant = json.dumps({"n": "giant", "noise": "x" * 5_000})
    topics.create(kafka, [topic_name], settings={"max.message.bytes": "2000"})
    limits = BatchLimits(linger_seconds=0.02, max_batch_bytes=8_192, max_record_bytes=8_192)
    async with live(installation, kafka, topic_name, codec="none", batch=limits) as agent:
        installation.append(*lines(20), giant)
        await eventually(lambda: found(events, "moved a batch to the dead letters"), seconds=20)
        await drained(agent)
    topics.alter(kafka, topic_name, "max.message.bytes", "1000000")
    await requeue(installation, topic_name)
    async with live(installation, kafka, topic_name, codec="none", batch=limits) as agent:
        await eventually(lambda: acknowledged(agent, topic_name) == 21, seconds=20)
        assert agent.describe()[0]["records"]["dead_lettered"] == 0
    assert await stored(kafka, topic_name) == encoded([*lines(20), giant])


def refusals(events: Events) -> Events:
    return found(events, "batch refused") + found(events, "the receiver cannot open the run")


async def requeue(installation: Installation, stream: str) -> None:
    from logfwd.spool_commands import _requeue

    requeued, damaged = await _requeue(installation.directory / "state" / f"{stream}.spool", stream, None)
    assert (requeued, damaged) == (1, [])


async def test_a_topic_that_becomes_compacted_holds_records_back_and_loses_none(
    installation: Installation, kafka: Kafka, topic_name: str, events: Events
) -> None:
    topics.create(kafka, [topic_name])
    async with live(installation, kafka, topic_name) as agent:
        await send(installation, agent, topic_name, 0, 100)
        topics.alter(kafka, topic_name, "cleanup.policy", "compact")
        installation.append(*lines(100, 100))
        await eventually(lambda: len(refusals(events)) >= 4, seconds=30)
        (row,) = agent.describe()
        assert (row["records"]["dead_lettered"], row["spool"]["batches"] > 0) == (0, True)
        topics.alter(kafka, topic_name, "cleanup.policy", "delete")
        await eventually(lambda: acknowledged(agent, topic_name) == 200, seconds=60)
    assert await stored(kafka, topic_name) == encoded(lines(200))


async def test_a_topic_that_was_deleted_and_made_anew_gets_what_was_not_acknowledged(
    installation: Installation, kafka: Kafka, topic_name: str, events: Events
) -> None:
    topics.create(kafka, [topic_name])
    async with live(installation, kafka, topic_name) as agent:
        await send(installation, agent, topic_name, 0, 100)
        await asyncio.to_thread(topics.make_anew, kafka, topic_name)
        await send(installation, agent, topic_name, 100, 100)
    assert await stored(kafka, topic_name) == encoded(lines(100, 100))
    assert {event["reason"] for event in found(events, "reset a run")} <= {"topic_replaced"}


async def test_a_broker_that_lost_its_log_gets_all_that_it_had_not_acknowledged(
    installation: Installation, tmp_path: Path
) -> None:
    """What it had acknowledged is gone with its log: no sender can know. Nothing else is."""
    crash = Crash(sent=5, stored=3, event="unclean")
    async with Kafka(tmp_path / "kafka") as kafka:
        topics.create(kafka, [crash.stream])
        await crash_all([crash], installation, kafka)
        kafka.kill()
        for segment in (kafka.brokers[0].data / f"{crash.stream}-0").iterdir():
            if segment.suffix in (".log", ".index", ".timeindex", ".snapshot"):
                segment.unlink()
        shutil.rmtree(kafka.brokers[0].data / ".lock", ignore_errors=True)
        kafka.restart()
        async with delivering(installation, kafka, without_input(installation, [crash])) as agent:
            await drained(agent)
        assert await stored(kafka, crash.stream) == crash.records[crash.acknowledged * 7 :]
