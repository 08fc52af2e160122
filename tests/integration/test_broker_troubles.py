"""A broker that answers for its own troubles: no batch is blamed for them, none is stored twice, and the broker is
not asked all the time. One that refuses a single batch for ever, while others are stored, costs that batch alone.

Five minutes of it in `make chaos`, a few seconds in `make test`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from pathlib import Path

import pytest

from bench.chaos.refusingbroker import Batch, Judge, RefusingBroker, Verdict, refusing
from bench.lab.kafka import Kafka
from logfwd.links import resume
from logreceiver.sinks import settings as sink_settings
from tests.support.chaos import CHAOS
from tests.support.delivery import RECORDS, Life, joined, numbered, way_to
from tests.support.installation import eventually

pytestmark = [pytest.mark.kafka, pytest.mark.slow]
TROUBLE_SECONDS = 300.0 if CHAOS else 12.0
TURN_SECONDS = 3.0
PAUSE_SECONDS = 0.25 if CHAOS else 0.05
"""Fewer batches than a backlog holds in memory: this harness does not read further ones from the disk."""
DRAIN_SECONDS = 240.0
NOT_KNOWN, CORRUPT_MESSAGE, NOT_ENOUGH_REPLICAS = -1, 2, 19
IN_TURNS = (NOT_KNOWN, NOT_ENOUGH_REPLICAS, CORRUPT_MESSAGE)
MOST_ASKS = 12
"""Of a stream, until its pauses have grown to their length."""
SHORTEST_PAUSE_SECONDS = 5.0


def behind(proxy: RefusingBroker) -> sink_settings.KafkaSink:
    return sink_settings.KafkaSink(brokers=(proxy.address,), create_topics=True, produce_timeout_seconds=10.0)


async def load(life: Life, first: int, *, seconds: float) -> int:
    """One batch after the other for some time; returns the number of the next."""
    until, number = asyncio.get_running_loop().time() + seconds, first
    while asyncio.get_running_loop().time() < until:
        await life.seal(*numbered(number))
        number += 1
        await asyncio.sleep(PAUSE_SECONDS)
    return number


def in_turns(begun: float, dice: random.Random, *, stored: float) -> Judge:
    """Refuses everything, with each error for a few seconds; a share of it is stored all the same."""

    def judge(_: Batch) -> Verdict:
        turn = int((asyncio.get_running_loop().time() - begun) / TURN_SECONDS)
        return Verdict(IN_TURNS[turn % len(IN_TURNS)], stored=dice.random() < stored)

    return judge


@pytest.mark.parametrize("stored", [0.0, 0.5] if CHAOS else [0.5])
async def test_troubles_of_the_broker_cost_no_batch_and_are_not_asked_about_all_the_time(
    kafka: Kafka, tmp_path: Path, topic_name: str, stored: float, capsys: pytest.CaptureFixture[str]
) -> None:
    streams = [f"{topic_name}-{number}" for number in range(2)]
    loop = asyncio.get_running_loop()
    async with refusing(kafka.bootstrap) as proxy, way_to(kafka, tmp_path, behind(proxy)) as way:
        async with contextlib.AsyncExitStack() as stack:
            lives = [await stack.enter_async_context(way.life(stream)) for stream in streams]
            for life in lives:
                await stack.enter_async_context(life.sending())
            counts = await asyncio.gather(*(load(life, 0, seconds=1.0) for life in lives))
            await eventually(lambda: not any(life.backlog.rows for life in lives), DRAIN_SECONDS)
            begun = loop.time()
            proxy.judge = in_turns(begun, random.Random(1), stored=stored)
            counts = await asyncio.gather(
                *(load(life, n, seconds=TROUBLE_SECONDS) for life, n in zip(lives, counts, strict=True))
            )
            proxy.judge, ended = lambda _: None, loop.time()
            await eventually(lambda: not any(life.backlog.rows for life in lives), DRAIN_SECONDS)
            totals = [life.backlog.totals for life in lives]
        asked = Counter(batch.topic for _, batch in proxy.refused)
        rates = ", ".join(f"{count / (ended - begun):.2f}" for count in asked.values())
        with capsys.disabled():
            print(f" {ended - begun:.0f} s: {rates} requests/s, {sum(counts)} batches", end=" ")
        assert [(each.dead_lettered, each.resets) for each in totals] == [(0, 0)] * len(streams)
        found = await way.stored(*streams)
    assert found == {stream: joined(numbered(*range(n))) for stream, n in zip(streams, counts, strict=True)}
    assert set(asked) == set(streams)
    assert max(asked.values()) <= MOST_ASKS + TROUBLE_SECONDS / SHORTEST_PAUSE_SECONDS


async def test_a_batch_that_the_broker_refuses_for_ever_while_it_stores_others_is_set_aside_alone(
    kafka: Kafka, tmp_path: Path, topic_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not CHAOS:
        monkeypatch.setattr(resume, "REFUSED_SECONDS", 3.0)
    poisoned, refused = [[b'{"poison":1}'] * RECORDS], 4
    async with (
        refusing(kafka.bootstrap) as proxy,
        way_to(kafka, tmp_path, behind(proxy), topic=topic_name) as way,
        way.life("poisoned") as life,
        way.life("healthy") as other,
        life.sending(),
        other.sending(),
    ):
        proxy.judge = lambda batch: Verdict(NOT_KNOWN) if b"poison" in batch.payload else None
        await life.seal(*numbered(*range(refused)), *poisoned, *numbered(*range(refused, 2 * refused)))
        healthy = asyncio.create_task(until_set_aside(life, other))
        async with asyncio.timeout(30 + resume.REFUSED_SECONDS + 30):
            count = await healthy
        await eventually(lambda: not life.backlog.rows and not other.backlog.rows, DRAIN_SECONDS)
        assert (life.backlog.totals.dead_lettered, other.backlog.totals.dead_lettered) == (RECORDS, 0)
        assert other.backlog.totals.resets == 0
        found = (await way.stored(topic_name))[topic_name]
    ours = joined(numbered(*range(2 * refused)))
    assert [value for value in found if b'"healthy"' not in value] == ours
    assert [value for value in found if b'"healthy"' in value] == [b'{"healthy":%d}' % n for n in range(count)]


async def until_set_aside(life: Life, other: Life) -> int:
    """Another forwarder goes on meanwhile; returns how many records it had."""
    count = 0
    while not life.backlog.totals.dead_lettered:
        await other.seal([b'{"healthy":%d}' % count])
        count += 1
        await asyncio.sleep(PAUSE_SECONDS)
    return count
