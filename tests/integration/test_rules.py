"""The rules of docs/delivery.md against real brokers: the cases that no window and no restart alone would bring up.

Cases about one answer of a broker are in test_sink_contract.py and test_kafka_sink.py, any order of events on a
simulated broker in test_resume_model.py, every state of a window in test_resume_matrix.py, resets in
test_resets.py, what becomes of a leader's death in test_leader_change.py.
"""

from __future__ import annotations

import asyncio
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.lab.kafka import Kafka
from bench.lab.site import command
from logfwd.links import conversation, resume
from logreceiver.links import patience
from logreceiver.sinks import Kind, RunState
from streams.records.batch import Codec, build
from tests.streams.records.test_batch import rewritten
from tests.support.cluster import add_partitions, configure_topic, create_topics
from tests.support.delivery import RECORDS, Way, joined, numbered, way_to
from tests.support.installation import Events, found
from tests.support.installation import eventually as becomes

pytestmark = pytest.mark.kafka
HOUR = 3600.0
GIANT = [b'{"giant":"%s"}' % (b"x" * 3000)]


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
        await way.restart_broker()
        monkeypatch.setattr(conversation, "time", SimpleNamespace(time=lambda: time.time() + 2 * HOUR))
        for stream in ages:
            assert await way.known(stream, producers[stream]) == RunState(0, 2 * RECORDS - 1)
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


async def test_a_stored_batch_over_a_lowered_limit_is_stored_once_though_its_run_has_no_other(
    kafka: Kafka, tmp_path: Path, topic_name: str
) -> None:
    """Its acknowledgement was lost with the forwarder, whose next start seals into a run of its own."""
    large = [b'{"large":%d,"pad":"%s"}' % (number, b"x" * 500) for number in range(8)]
    async with way_to(kafka, tmp_path) as way:
        async with way.life(topic_name) as life:
            (row,) = await life.seal(large)
            await life.open_run()
            copy = await life.copy(row)
        assert (await way.late(topic_name, copy)).kind is Kind.STORED
        configure_topic(kafka, topic_name, max_message_bytes="1500")
        async with way.life(topic_name) as life, life.sending():
            await becomes(lambda: life.delivery.trouble)
            assert len(life.backlog.rows) == 1
            await life.seal(*numbered(1, 2))
            life.sender.wake.set()
            await becomes(lambda: not life.backlog.rows)
            totals = life.backlog.totals
            assert (totals.resets, totals.dead_lettered, life.delivery.trouble) == (0, 0, "")
        assert await way.stored(topic_name) == {topic_name: joined([large, *numbered(1, 2)])}


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


async def test_records_that_the_broker_cannot_decompress_are_set_aside_once_others_are_stored_there(
    kafka: Kafka, tmp_path: Path, topic_name: str, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume, "REFUSED_SECONDS", 0.5)
    monkeypatch.setattr(conversation, "FULL_PAUSE_SECONDS", 0.1)
    sound = build(
        [b'{"n":%d}' % number for number in range(200)], timestamp_ms=int(time.time() * 1000), codec=Codec.ZSTD
    )
    broken = bytearray(sound)
    broken[-20] ^= 0xFF
    async with way_to(kafka, tmp_path, topic=topic_name) as way:
        async with way.life("broken") as life, way.life("other") as other, other.sending():
            await life.seal(*numbered(0))
            await life.accept(rewritten(bytes(broken)))
            await life.seal(*numbered(1, 2))
            async with life.sending():
                await becomes(lambda: found(events, "batch stuck"))
                assert life.backlog.totals.dead_lettered == 0, "it may be the broker"
                await other.seal(*numbered(3))
                other.sender.wake.set()
                await becomes(lambda: not life.backlog.rows)
            assert (life.backlog.totals.dead_lettered, life.backlog.totals.resets) == (200, 1)
            assert (other.backlog.totals.dead_lettered, life.delivery.trouble) == (0, "")
        assert sorted(*(await way.stored(topic_name)).values()) == sorted(joined(numbered(0, 1, 2, 3)))
    refusals = [event for event in found(events, "batch refused") if event["records"] == 200]
    assert [event["remedy"] for event in refusals][-1] == resume.Remedy.DEAD_LETTER.value
    assert len(refusals) > resume.REFUSALS_ALONE


async def test_a_topic_that_becomes_compacted_is_waited_for_and_costs_no_batch(
    kafka: Kafka, tmp_path: Path, topic_name: str, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "MOST_SECONDS", 1.0)
    async with way_to(kafka, tmp_path) as way:
        async with way.life(topic_name) as life:
            await life.seal(*numbered(0))
            await life.finish()
            await life.seal(*numbered(1, 2))
        configure_topic(kafka, topic_name, cleanup_policy="compact")
        async with way.life(topic_name) as life, life.sending():
            await becomes(lambda: len(found(events, "run not opened")) > 1)
            assert (len(life.backlog.rows), life.backlog.totals.dead_lettered) == (2, 0)
        configure_topic(kafka, topic_name, cleanup_policy=None)
        async with way.life(topic_name) as life:
            await life.finish()
            assert (life.backlog.totals.resets, life.backlog.totals.dead_lettered) == (0, 0)
        assert await way.stored(topic_name) == {topic_name: joined(numbered(0, 1, 2))}


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
