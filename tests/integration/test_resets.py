"""Late copies of batches, and resets: what repeats nothing, and what is counted where something can be repeated.

The first half keeps the promise of docs/delivery.md; the second is beyond it: nothing that was unacknowledged is lost.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bench.lab.kafka import Kafka
from logfwd.links import resume
from logreceiver import service
from logreceiver.links.grants import Grants
from logreceiver.sinks import Kind, RunState
from logreceiver.sinks.kafka.sink import KafkaSink
from streams.errors import Code
from streams.records.batch import parse_header
from tests.support.cluster import configure_brokers, create_topics, delete_topic
from tests.support.delivery import Way, joined, numbered, way_to
from tests.support.installation import Events, found
from tests.support.installation import eventually as becomes
from tests.support.patience import PATIENCE_SECONDS
from tests.support.sinks import eventually

pytestmark = pytest.mark.kafka


# -- rules 9 and 11: late copies and resets ----------------------------------------------------------------------------


async def test_late_copies_of_a_dead_receiver_append_nothing_before_and_after_a_restart(
    kafka: Kafka, tmp_path: Path, topic_name: str
) -> None:
    async with way_to(kafka, tmp_path) as way:
        async with way.life(topic_name) as life:
            copies = await life.begin(sealed=5, stored=3)
        async with way.life(topic_name) as life:
            await life.finish()
        assert {(await way.late(topic_name, copy)).kind for copy in copies} == {Kind.DUPLICATE}
        await way.restart_broker()
        assert [(await way.late(topic_name, copy)).kind for copy in copies] == [Kind.REFUSED] * 4 + [Kind.DUPLICATE]
        assert await way.stored(topic_name) == {topic_name: joined(numbered(0, 1, 2, 3, 4))}


async def test_late_copies_and_a_restart_between_the_question_and_the_first_batch_change_nothing(
    kafka: Kafka, tmp_path: Path, topic_name: str, monkeypatch: pytest.MonkeyPatch, events: Events
) -> None:
    copies: list[memoryview] = []

    class Raced(KafkaSink):
        """What it answers is overtaken by what a dead receiver had handed over."""

        async def ask(self, topic: str, partition: int, producer_id: int) -> RunState | None:
            answer = await super().ask(topic, partition, producer_id)
            if copies:
                for copy in copies:
                    await self.produce(topic, partition, copy)
                copies.clear()
                kafka.kill()
                kafka.launch()
                await eventually(lambda: KafkaSink.ask(self, topic, partition, producer_id))
            return answer

    monkeypatch.setattr(service, "make_sink", lambda settings, **_: Raced(settings))
    async with way_to(kafka, tmp_path) as way:
        async with way.life(topic_name) as life:
            made = await life.begin(sealed=6, stored=3, acknowledged=1)
        copies += made[3:5]
        async with way.life(topic_name) as life:
            await life.finish()
            assert life.backlog.totals.resets == 0
        assert await way.stored(topic_name) == {topic_name: joined(numbered(*range(6)))}
    refusals = {event["code"] for event in found(events, "batch refused")}
    assert refusals & {"out_of_order", "unavailable"}  # the latter if the restarted broker was not leader yet


async def test_a_crash_right_after_a_reset_and_late_copies_around_it_repeat_nothing(
    kafka: Kafka, tmp_path: Path, topic_name: str
) -> None:
    async with way_to(kafka, tmp_path) as way:
        async with way.life(topic_name) as life:
            copies = await life.begin(sealed=5, stored=1, acknowledged=1)
            run = life.backlog.head_run()
            assert run is not None
            await life.delivery.dead_letter(life.backlog.rows[0], "too_large", "")
            await life.delivery.reset(run, resume.Reset("dead_letter"))
        assert await late_codes(way, topic_name, copies[2:]) == {Code.OUT_OF_ORDER}
        async with way.life(topic_name) as life:
            await life.finish()
            assert life.backlog.totals.resets == 1
        assert await late_codes(way, topic_name, copies[2:]) == {Code.FENCED}
        await way.restart_broker()
        assert await late_codes(way, topic_name, copies[2:]) == {Code.FENCED}
        assert await way.stored(topic_name) == {topic_name: joined(numbered(0, 2, 3, 4))}


async def late_codes(way: Way, topic: str, copies: list[memoryview]) -> set[Code | None]:
    return {(await way.late(topic, copy)).code for copy in copies}


async def test_a_crash_between_a_dead_letter_and_its_reset_ends_in_a_reset_that_repeats_nothing(
    kafka: Kafka, tmp_path: Path, topic_name: str, quick_resets: None
) -> None:
    async with way_to(kafka, tmp_path) as way:
        async with way.life(topic_name) as life:
            await life.begin(sealed=4, stored=1, acknowledged=1)
            await life.delivery.dead_letter(life.backlog.rows[0], "too_large", "")
        async with way.life(topic_name) as life:
            await life.finish()
            assert life.backlog.totals.resets == 1
        assert await way.stored(topic_name) == {topic_name: joined(numbered(0, 2, 3))}


# -- whose producer id it is -----------------------------------------------------------------------------------------


async def test_a_grant_that_no_receiver_honours_costs_time_and_a_new_producer_but_no_batch(
    kafka: Kafka,
    tmp_path: Path,
    topic_name: str,
    quick_resets: None,
    events: Events,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with way_to(kafka, tmp_path) as way:
        way.grants = Grants({"elsewhere": bytes(32)})
        async with way.life(topic_name) as life:
            await life.begin(sealed=3, stored=1, acknowledged=1)
        async with way.life(topic_name) as life, life.sending():
            await becomes(lambda: len(found(events, "run not opened")) > 1)
            assert (len(life.backlog.rows), life.backlog.totals.resets) == (2, 0)
        monkeypatch.setattr(resume, "NOT_GRANTED_PATIENCE_SECONDS", 0.0)
        async with way.life(topic_name) as life:
            await life.finish()
            assert (life.backlog.totals.resets, life.backlog.totals.dead_lettered) == (1, 0)
        assert await way.stored(topic_name) == {topic_name: joined(numbered(0, 1, 2))}
    assert {event["code"] for event in found(events, "run not opened")} == {"not_granted"}


# -- beyond the promise: nothing is lost, what is repeated is counted ------------------------------------------------


async def test_another_life_of_the_spool_costs_repeats_of_at_most_what_the_reset_counts(
    kafka: Kafka, tmp_path: Path, topic_name: str, quick_resets: None, events: Events
) -> None:
    async with way_to(kafka, tmp_path) as way:
        async with way.life(topic_name) as life:
            await life.begin(sealed=4, stored=2, acknowledged=1)
            row, run = life.backlog.rows[0], life.backlog.head_run()
            assert run is not None
            run.producer_epoch, row.base_sequence = 1, 0  # what a clone of this spool came to
            await life.store(row)
        async with way.life(topic_name) as life:
            await life.finish()
            assert life.backlog.totals.resets == 1
        assert await way.stored(topic_name) == {topic_name: joined(numbered(0, 1, 1, 1, 2, 3))}
    (reset,) = found(events, "run reset")
    assert (reset["reason"], reset["batches_possibly_repeated"], reset["new_producer"]) == ("fenced", 3, True)


async def test_a_producer_that_the_broker_forgot_loses_nothing_and_repeats_only_what_was_unacknowledged(
    kafka: Kafka, tmp_path: Path, topic_name: str
) -> None:
    async with way_to(kafka, tmp_path) as way:
        async with way.life(topic_name) as life:
            copies = await life.begin(sealed=5, stored=3, acknowledged=1)
        producer_id = parse_header(copies[0]).producer_id
        await asyncio.to_thread(configure_brokers, kafka, "producer.id.expiration.ms=1000")
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while await way.known(topic_name, producer_id) is not None:
                    await asyncio.sleep(0.1)
        finally:
            await asyncio.to_thread(configure_brokers, kafka, "producer.id.expiration.ms")
        async with way.life(topic_name) as life:
            await life.finish()
        assert await way.stored(topic_name) == {topic_name: joined(numbered(0, 1, 2, 1, 2, 3, 4))}


async def test_a_topic_that_was_made_anew_gets_all_that_was_unacknowledged(
    kafka: Kafka, tmp_path: Path, topic_name: str, quick_resets: None, events: Events
) -> None:
    async with way_to(kafka, tmp_path) as way:
        async with way.life(topic_name) as life:
            await life.begin(sealed=4, stored=2, acknowledged=1)
        await asyncio.to_thread(delete_topic, kafka, topic_name)
        await asyncio.to_thread(create_topics, kafka, [topic_name])
        async with way.life(topic_name) as life:
            await life.finish()
            assert life.backlog.totals.resets == 1
        assert await way.stored(topic_name) == {topic_name: joined(numbered(1, 2, 3))}
    assert [event["reason"] for event in found(events, "run reset")] == ["topic_replaced"]


KEPT = {
    # batches that the log kept: what the topic holds in the end, and the resets
    3: ([0, 1, 2, 3, 4], 0),  # what was unacknowledged is sent again
    1: ([0, 2, 3, 4], 1),  # an acknowledged batch went with it: that is the broker's loss
    0: ([2, 3, 4], 0),
}


async def test_a_log_that_lost_its_end_costs_nothing_that_was_unacknowledged(
    kafka: Kafka, tmp_path: Path, topic_name: str, quick_resets: None, events: Events
) -> None:
    streams = {f"{topic_name}-{kept}": kept for kept in KEPT}
    async with way_to(kafka, tmp_path) as way:
        for stream in streams:
            async with way.life(stream) as life:
                await life.begin(sealed=5, stored=4, acknowledged=2)
        kafka.kill()
        for stream, kept in streams.items():
            cut_log(kafka.brokers[0].data / f"{stream}-0", kept)
        await way.restart_broker()
        for stream, kept in streams.items():
            async with way.life(stream) as life:
                await life.finish()
                assert life.backlog.totals.resets == KEPT[kept][1], stream
        expected = {stream: joined(numbered(*KEPT[kept][0])) for stream, kept in streams.items()}
        assert await way.stored(*streams) == expected
    (reset,) = found(events, "run reset")
    assert (reset["reason"], reset["batches_possibly_repeated"]) == ("unknown_sequence", 3)


def cut_log(partition: Path, kept: int) -> None:
    """Only the first batches are left, and nothing next to them that shows that there were others."""
    (segment,) = partition.glob("*.log")
    content, end = segment.read_bytes(), 0
    for _ in range(kept):
        end += parse_header(content[end:]).size
    segment.write_bytes(content[:end])
    for pattern in ("*.snapshot", "*.index", "*.timeindex"):
        for path in partition.glob(pattern):
            path.unlink()
