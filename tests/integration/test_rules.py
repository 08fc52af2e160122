"""The rules of docs/delivery.md against real brokers: the cases that no window and no restart alone would bring up.

Cases about one answer of a broker are in test_sink_contract.py and test_kafka_sink.py, any order of events on a
simulated broker in test_resume_model.py, every state of a window in test_resume_matrix.py.
"""

from __future__ import annotations

import asyncio
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.kafka import Kafka
from bench.site import command
from logfwd import conversation, resume
from logreceiver import config, service
from logreceiver.grants import Grants
from logreceiver.sinks import Kind, RunState
from logreceiver.sinks.kafka import KafkaSink
from streams.errors import Code
from streams.recordbatch import Codec, build, parse_header
from tests.streams.test_recordbatch import rewritten
from tests.support.cluster import add_partitions, configure_brokers, configure_topic, create_topics, delete_topic
from tests.support.delivery import ANSWER_SECONDS, RECORDS, Life, Way, joined, numbered, way_to
from tests.support.installation import Events, found
from tests.support.installation import eventually as becomes
from tests.support.sinks import eventually

pytestmark = pytest.mark.kafka
HOUR = 3600.0
REPLICA_FETCH_SECONDS = 0.5
GIANT = [b'{"giant":"%s"}' % (b"x" * 3000)]


@pytest.fixture
def quick_resets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reset waits one second for late copies; these tests know where theirs are."""
    monkeypatch.setattr(resume, "LATE_COPY_MARGIN_SECONDS", 1.0 - ANSWER_SECONDS)


async def known(way: Way, topic: str, producer_id: int) -> RunState | None:
    return await eventually(lambda: way.sink.ask(topic, 0, producer_id))


async def restarted(kafka: Kafka, way: Way) -> None:
    """kill -9 of the broker; it is back and answers."""
    kafka.restart()
    await eventually(way.sink.new_producer_id)


async def begin(life: Life, *, sealed: int, stored: int = 0, acknowledged: int = 0) -> list[memoryview]:
    """Seal and stamp batches 0, 1, …; store the first, acknowledge the first of these. Copies of all are returned."""
    rows = await life.seal(*numbered(*range(sealed)))
    await life.open_run()
    copies = [await life.copy(row) for row in rows]
    await life.store(*rows[:stored])
    for row in rows[:acknowledged]:
        await life.acknowledge(row)
    return copies


# -- rules 7 and 9: acknowledged is what is replicated -----------------------------------------------------------


async def test_a_batch_that_only_the_leader_has_is_not_taken_for_stored_and_outlives_the_leader(
    cluster: Kafka, tmp_path: Path, topic_name: str
) -> None:
    await asyncio.to_thread(create_topics, cluster, [topic_name], replicas=[2, 3, 1])
    leader = f"127.0.0.1:{cluster.brokers[1].port}"  # whoever asks for metadata is not to wait for a stopped broker
    async with way_to(cluster, tmp_path, config.KafkaSink(brokers=(leader,), produce_timeout_seconds=10.0)) as way:
        async with way.life(topic_name) as life:
            copies = await begin(life, sealed=3, stored=1, acknowledged=1)
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
            assert await known(way, topic_name, producer_id) == RunState(0, RECORDS - 1)
            async with way.life(topic_name) as life:
                await life.finish()
                assert life.backlog.totals.resets == 0
        finally:
            cluster.restart(2)
        assert await way.stored(topic_name) == {topic_name: joined(numbered(0, 1, 2))}


async def becomes_known(way: Way, topic: str, producer_id: int, state: RunState) -> None:
    async with asyncio.timeout(5):
        while await known(way, topic, producer_id) != state:
            await asyncio.sleep(0.01)


# -- rule 14: the broker's memory goes by timestamps ---------------------------------------------------------------


async def test_batches_read_days_ago_or_by_a_clock_that_is_ahead_are_still_known_after_a_restart(
    kafka: Kafka, tmp_path: Path, topic_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ages = {f"{topic_name}-{hours}": hours * HOUR for hours in (25, 48, -2)}
    producers: dict[str, int] = {}
    async with way_to(kafka, tmp_path) as way:
        for stream, age in ages.items():
            async with way.life(stream) as life:
                rows = await life.seal(*numbered(0, 1, 2, 3), age_seconds=age)
                producers[stream] = (await life.open_run()).producer_id
                await life.store(*rows[:2])
        await restarted(kafka, way)
        monkeypatch.setattr(conversation, "time", SimpleNamespace(time=lambda: time.time() + 2 * HOUR))
        for stream in ages:
            assert await known(way, stream, producers[stream]) == RunState(0, 2 * RECORDS - 1)
            async with way.life(stream) as life:
                await life.finish()
                assert (life.backlog.totals.resets, life.backlog.totals.dead_lettered) == (0, 0)
        assert await way.stored(*ages) == dict.fromkeys(ages, joined(numbered(0, 1, 2, 3)))


# -- rules 6 and 10: a refused batch ---------------------------------------------------------------------------------


@pytest.mark.parametrize("begun", [False, True], ids=["unknown producer", "known producer"])
async def test_a_batch_over_a_lowered_limit_is_halved_and_nothing_behind_it_overtakes(
    kafka: Kafka, tmp_path: Path, topic_name: str, begun: bool
) -> None:
    large = [b'{"large":%d,"pad":"%s"}' % (number, b"x" * 500) for number in range(8)]
    batches = [*numbered(0), large, *numbered(1, 2, 3)][0 if begun else 1 :]
    async with way_to(kafka, tmp_path) as way:
        async with way.life(topic_name) as life:
            rows = await life.seal(*batches)
            await life.open_run()
            original = await life.copy(rows[batches.index(large)])
            await life.store(*rows[: int(begun)])
        configure_topic(kafka, topic_name, max_message_bytes="1500")
        async with way.life(topic_name) as life:
            await life.finish()
            totals = life.backlog.totals
            assert (totals.resets, totals.dead_lettered) == (0, 0)
        configure_topic(kafka, topic_name, max_message_bytes=None)
        assert (await way.late(topic_name, original)).kind is Kind.REFUSED
        assert await way.stored(topic_name) == {topic_name: joined(batches)}


async def test_what_cannot_be_stored_becomes_a_dead_letter_and_requeue_brings_it_back(
    kafka: Kafka, tmp_path: Path, topic_name: str
) -> None:
    await asyncio.to_thread(create_topics, kafka, [topic_name], configs={"max.message.bytes": "1500"})
    async with way_to(kafka, tmp_path) as way:
        async with way.life(topic_name) as life:
            await life.seal(*numbered(0, 1), GIANT, *numbered(2, 3))
            await life.finish()
            totals = life.backlog.totals
            assert (totals.acknowledged, totals.dead_lettered, totals.resets) == (4 * RECORDS, 1, 1)
        assert await way.stored(topic_name) == {topic_name: joined(numbered(0, 1, 2, 3))}
        configure_topic(kafka, topic_name, max_message_bytes=None)
        assert await asyncio.to_thread(requeue, way, topic_name) == "requeued 1 records\n"
        async with way.life(topic_name) as life:
            await life.finish()
            totals = life.backlog.totals
            assert (totals.accepted, totals.acknowledged, totals.dead_lettered) == (4 * RECORDS + 1,) * 2 + (0,)
        assert await way.stored(topic_name) == {topic_name: joined([*numbered(0, 1, 2, 3), GIANT])}


def requeue(way: Way, stream: str) -> str:
    """`logfwd spool requeue`, as an operator runs it."""
    tls, path = way.credentials, way.directory / "logfwd.toml"
    (way.directory / "streams.d").mkdir()
    (way.directory / "streams.d" / f"{stream}.toml").write_text(
        f'name = "{stream}"\n[source]\ntype = "file"\npaths = ["http.log"]\n'
    )
    path.write_text(
        'state_dir = "state"\nreceivers = ["localhost:1"]\n'
        f'[tls]\ncertificate = "{tls.certificate}"\nkey = "{tls.key}"\nca = "{tls.ca}"\n'
    )
    argv = [command("logfwd"), "spool", "requeue", stream, "-c", str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout + done.stderr


async def test_records_that_the_broker_cannot_decompress_are_set_aside_after_three_times_alone(
    kafka: Kafka, tmp_path: Path, topic_name: str, events: Events
) -> None:
    sound = build(
        [b'{"n":%d}' % number for number in range(200)], timestamp_ms=int(time.time() * 1000), codec=Codec.ZSTD
    )
    broken = bytearray(sound)
    broken[-20] ^= 0xFF
    async with way_to(kafka, tmp_path) as way:
        async with way.life(topic_name) as life:
            await life.seal(*numbered(0))
            await life.accept(rewritten(bytes(broken)))
            await life.seal(*numbered(1, 2))
            await life.finish()
            assert (life.backlog.totals.dead_lettered, life.backlog.totals.resets) == (200, 1)
        assert await way.stored(topic_name) == {topic_name: joined(numbered(0, 1, 2))}
    refusals = [event for event in found(events, "batch refused") if event["records"] == 200]
    assert [event["remedy"] for event in refusals][-1] == resume.Remedy.DEAD_LETTER.value
    assert len(refusals) >= resume.REFUSALS_ALONE


async def test_a_topic_that_becomes_compacted_is_waited_for_and_costs_no_batch(
    kafka: Kafka, tmp_path: Path, topic_name: str, events: Events
) -> None:
    async with way_to(kafka, tmp_path) as way:
        async with way.life(topic_name) as life:
            await life.seal(*numbered(0))
            await life.finish()
            await life.seal(*numbered(1, 2))
        configure_topic(kafka, topic_name, cleanup_policy="compact")
        async with way.life(topic_name) as life, life.sending():
            await becomes(lambda: len(found(events, "the receiver cannot open the run")) > 1)
            assert (len(life.backlog.rows), life.backlog.totals.dead_lettered) == (2, 0)
        configure_topic(kafka, topic_name, cleanup_policy=None)
        async with way.life(topic_name) as life:
            await life.finish()
            assert (life.backlog.totals.resets, life.backlog.totals.dead_lettered) == (0, 0)
        assert await way.stored(topic_name) == {topic_name: joined(numbered(0, 1, 2))}


# -- rules 9 and 11: late copies and resets ----------------------------------------------------------------------------


async def test_late_copies_of_a_dead_receiver_append_nothing_before_and_after_a_restart(
    kafka: Kafka, tmp_path: Path, topic_name: str
) -> None:
    async with way_to(kafka, tmp_path) as way:
        async with way.life(topic_name) as life:
            copies = await begin(life, sealed=5, stored=3)
        async with way.life(topic_name) as life:
            await life.finish()
        assert {(await way.late(topic_name, copy)).kind for copy in copies} == {Kind.DUPLICATE}
        await restarted(kafka, way)
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
            while copies:
                await self.produce(topic, partition, copies.pop(0))
                if not copies:
                    kafka.restart()
            return answer

    monkeypatch.setattr(service, "make_sink", Raced)
    async with way_to(kafka, tmp_path) as way:
        async with way.life(topic_name) as life:
            made = await begin(life, sealed=6, stored=3, acknowledged=1)
        copies += made[3:5]
        async with way.life(topic_name) as life:
            await life.finish()
            assert life.backlog.totals.resets == 0
        assert await way.stored(topic_name) == {topic_name: joined(numbered(*range(6)))}
    assert "out_of_order" in {event["code"] for event in found(events, "batch refused")}


async def test_a_crash_right_after_a_reset_and_late_copies_around_it_repeat_nothing(
    kafka: Kafka, tmp_path: Path, topic_name: str
) -> None:
    async with way_to(kafka, tmp_path) as way:
        async with way.life(topic_name) as life:
            copies = await begin(life, sealed=5, stored=1, acknowledged=1)
            run = life.backlog.head_run()
            assert run is not None
            await life.delivery.dead_letter(life.backlog.rows[0], "too_large", "")
            await life.delivery.reset(run, resume.Reset("dead_letter"))
        assert await late_codes(way, topic_name, copies[2:]) == {Code.OUT_OF_ORDER}
        async with way.life(topic_name) as life:
            await life.finish()
            assert life.backlog.totals.resets == 1
        assert await late_codes(way, topic_name, copies[2:]) == {Code.FENCED}
        await restarted(kafka, way)
        assert await late_codes(way, topic_name, copies[2:]) == {Code.FENCED}
        assert await way.stored(topic_name) == {topic_name: joined(numbered(0, 2, 3, 4))}


async def late_codes(way: Way, topic: str, copies: list[memoryview]) -> set[Code | None]:
    return {(await way.late(topic, copy)).code for copy in copies}


async def test_a_crash_between_a_dead_letter_and_its_reset_ends_in_a_reset_that_repeats_nothing(
    kafka: Kafka, tmp_path: Path, topic_name: str, quick_resets: None
) -> None:
    async with way_to(kafka, tmp_path) as way:
        async with way.life(topic_name) as life:
            await begin(life, sealed=4, stored=1, acknowledged=1)
            await life.delivery.dead_letter(life.backlog.rows[0], "too_large", "")
        async with way.life(topic_name) as life:
            await life.finish()
            assert life.backlog.totals.resets == 1
        assert await way.stored(topic_name) == {topic_name: joined(numbered(0, 2, 3))}


# -- rule 12: the partition is kept ----------------------------------------------------------------------------------


async def test_a_spool_keeps_its_partition_when_its_topic_gets_more_of_them(
    kafka: Kafka, tmp_path: Path, topic_name: str, quick_resets: None
) -> None:
    streams = [f"{topic_name}-{number}" for number in range(4)]
    async with way_to(kafka, tmp_path) as way:
        for stream in streams:
            async with way.life(stream) as life:
                await life.seal(*numbered(0))
                await life.finish()
            await asyncio.to_thread(add_partitions, kafka, stream, 16)
        for numbers in ((1, 2), (3,)):
            for stream in streams:
                async with way.life(stream) as life:
                    await life.seal(*numbered(*numbers))
                    await life.finish()
        assert await way.stored(*streams) == dict.fromkeys(streams, joined(numbered(0, 1, 2, 3)))


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
            await begin(life, sealed=3, stored=1, acknowledged=1)
        async with way.life(topic_name) as life, life.sending():
            await becomes(lambda: len(found(events, "the receiver cannot open the run")) > 1)
            assert (len(life.backlog.rows), life.backlog.totals.resets) == (2, 0)
        monkeypatch.setattr(resume, "NOT_GRANTED_PATIENCE_SECONDS", 0.0)
        async with way.life(topic_name) as life:
            await life.finish()
            assert (life.backlog.totals.resets, life.backlog.totals.dead_lettered) == (1, 0)
        assert await way.stored(topic_name) == {topic_name: joined(numbered(0, 1, 2))}
    assert {event["code"] for event in found(events, "the receiver cannot open the run")} == {"not_granted"}


# -- beyond the promise: nothing is lost, what is repeated is counted ------------------------------------------------


async def test_another_life_of_the_spool_costs_repeats_of_at_most_what_the_reset_counts(
    kafka: Kafka, tmp_path: Path, topic_name: str, quick_resets: None, events: Events
) -> None:
    async with way_to(kafka, tmp_path) as way:
        async with way.life(topic_name) as life:
            await begin(life, sealed=4, stored=2, acknowledged=1)
            row, run = life.backlog.rows[0], life.backlog.head_run()
            assert run is not None
            run.producer_epoch, row.base_sequence = 1, 0  # what a clone of this spool came to
            await life.store(row)
        async with way.life(topic_name) as life:
            await life.finish()
            assert life.backlog.totals.resets == 1
        assert await way.stored(topic_name) == {topic_name: joined(numbered(0, 1, 1, 1, 2, 3))}
    (reset,) = found(events, "reset a run")
    assert (reset["reason"], reset["batches_possibly_repeated"], reset["new_producer"]) == ("fenced", 3, True)


async def test_a_producer_that_the_broker_forgot_loses_nothing_and_repeats_only_what_was_unacknowledged(
    cluster: Kafka, tmp_path: Path, topic_name: str
) -> None:
    await asyncio.to_thread(create_topics, cluster, [topic_name], replicas=[1, 2, 3])
    async with way_to(cluster, tmp_path) as way:
        async with way.life(topic_name) as life:
            copies = await begin(life, sealed=5, stored=3, acknowledged=1)
        producer_id = parse_header(copies[0]).producer_id
        await asyncio.to_thread(configure_brokers, cluster, "producer.id.expiration.ms=1000")
        try:
            async with asyncio.timeout(20):
                while await known(way, topic_name, producer_id) is not None:
                    await asyncio.sleep(0.1)
        finally:
            await asyncio.to_thread(configure_brokers, cluster, "producer.id.expiration.ms")
        async with way.life(topic_name) as life:
            await life.finish()
        assert await way.stored(topic_name) == {topic_name: joined(numbered(0, 1, 2, 1, 2, 3, 4))}


async def test_a_topic_that_was_made_anew_gets_all_that_was_unacknowledged(
    kafka: Kafka, tmp_path: Path, topic_name: str, quick_resets: None, events: Events
) -> None:
    async with way_to(kafka, tmp_path) as way:
        async with way.life(topic_name) as life:
            await begin(life, sealed=4, stored=2, acknowledged=1)
        await asyncio.to_thread(delete_topic, kafka, topic_name)
        await asyncio.to_thread(create_topics, kafka, [topic_name])
        async with way.life(topic_name) as life:
            await life.finish()
            assert life.backlog.totals.resets == 1
        assert await way.stored(topic_name) == {topic_name: joined(numbered(1, 2, 3))}
    assert [event["reason"] for event in found(events, "reset a run")] == ["topic_replaced"]


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
                await begin(life, sealed=5, stored=4, acknowledged=2)
        kafka.kill()
        for stream, kept in streams.items():
            cut_log(kafka.brokers[0].data / f"{stream}-0", kept)
        await restarted(kafka, way)
        for stream, kept in streams.items():
            async with way.life(stream) as life:
                await life.finish()
                assert life.backlog.totals.resets == KEPT[kept][1], stream
        expected = {stream: joined(numbered(*KEPT[kept][0])) for stream, kept in streams.items()}
        assert await way.stored(*streams) == expected
    (reset,) = found(events, "reset a run")
    assert (reset["reason"], reset["batches_possibly_repeated"]) == ("unknown_sequence", 3)


def cut_log(partition: Path, kept: int) -> None:
    """Only the first batches are left, and nothing beside them that would tell of others."""
    (segment,) = partition.glob("*.log")
    content, end = segment.read_bytes(), 0
    for _ in range(kept):
        end += parse_header(content[end:]).size
    segment.write_bytes(content[:end])
    for pattern in ("*.snapshot", "*.index", "*.timeindex"):
        for path in partition.glob(pattern):
            path.unlink()
