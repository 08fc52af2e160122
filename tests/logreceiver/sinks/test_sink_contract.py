"""One contract for both sinks: what `logreceiver/sinks/__init__.py` promises, and what a real Apache Kafka answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import get_args

import pytest

from logreceiver.sinks import Kind, Outcome, Reader, RunState
from logreceiver.sinks.make import make_reader
from logreceiver.sinks.settings import AnySink, Settings
from streams.errors import Code, SinkUnavailable
from streams.records.batch import Codec
from tests.support.batches import batch, values
from tests.support.sinks import Harness, KafkaHarness, LogHarness, ModelHarness, eventually

MODULUS = 1 << 31

SINKS = ["log", pytest.param("kafka", marks=pytest.mark.kafka)]

about_producers = pytest.mark.parametrize("harness", [*SINKS, "model"], indirect=True)
"""What the model of the resume rules' tests must answer as well."""


@pytest.fixture(params=SINKS)
async def harness(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Harness]:
    made: Harness
    match request.param:
        case "log":
            made = LogHarness(tmp_path)
        case "kafka":
            made = KafkaHarness(request.getfixturevalue("kafka"))
        case _:
            made = ModelHarness()
    await made.sink.start()
    yield made
    await made.sink.close()


class Run:
    """One producer on a fresh topic."""

    def __init__(self, harness: Harness, topic: str, producer_id: int) -> None:
        self._harness = harness
        self.topic = topic
        self.producer_id = producer_id

    async def produce(self, sequence: int, *, epoch: int = 0, records: int = 10) -> Outcome:
        made = batch(self.producer_id, sequence, producer_epoch=epoch, records=records)
        return await self._harness.sink.produce(self.topic, 0, made)

    async def ask(self) -> RunState | None:
        return await eventually(lambda: self._harness.sink.ask(self.topic, 0, self.producer_id))


@pytest.fixture
async def run(harness: Harness, topic_name: str) -> Run:
    await eventually(lambda: harness.sink.topic(topic_name))
    return Run(harness, topic_name, await eventually(harness.sink.new_producer_id))


def refused(outcome: Outcome, code: Code) -> bool:
    return (outcome.kind, outcome.code) == (Kind.REFUSED, code)


@about_producers
async def test_a_fresh_batch_is_stored_after_the_existing_ones(harness: Harness, run: Run) -> None:
    assert [await run.produce(10 * number) for number in range(3)] == [
        Outcome(Kind.STORED, offset) for offset in (0, 10, 20)
    ]
    assert await run.ask() == RunState(0, 29)
    assert harness.values(run.topic) == values(30)


@about_producers
@pytest.mark.parametrize("back", [1, 2, 5])
async def test_one_of_the_last_five_batches_is_recognised_when_it_is_sent_again(
    harness: Harness, run: Run, back: int
) -> None:
    for number in range(6):
        await run.produce(10 * number)
    assert await run.produce(60 - 10 * back) == Outcome(Kind.DUPLICATE, 60 - 10 * back)
    assert await run.ask() == RunState(0, 59)
    assert harness.values(run.topic) == values(60)


@about_producers
async def test_a_batch_older_than_the_last_five_is_out_of_order(run: Run) -> None:
    for number in range(6):
        await run.produce(10 * number)
    assert refused(await run.produce(0), Code.OUT_OF_ORDER)


@about_producers
async def test_a_batch_cut_at_other_places_is_not_a_repeat(run: Run) -> None:
    await run.produce(0)
    assert refused(await run.produce(0, records=5), Code.OUT_OF_ORDER)
    assert refused(await run.produce(5), Code.OUT_OF_ORDER)


@about_producers
async def test_a_gap_in_the_sequence_is_out_of_order_and_appends_nothing(harness: Harness, run: Run) -> None:
    await run.produce(0)
    assert refused(await run.produce(20), Code.OUT_OF_ORDER)
    assert await run.ask() == RunState(0, 9)
    assert harness.values(run.topic) == values(10)


@about_producers
async def test_a_new_producer_epoch_starts_at_sequence_zero_and_fences_the_old_one(run: Run) -> None:
    await run.produce(0)
    assert refused(await run.produce(10, epoch=1), Code.OUT_OF_ORDER)
    assert await run.ask() == RunState(0, 9)
    assert (await run.produce(0, epoch=1)).kind is Kind.STORED
    assert await run.ask() == RunState(1, 9)
    assert refused(await run.produce(10), Code.FENCED)
    assert refused(await run.produce(0), Code.FENCED)


@about_producers
async def test_an_unknown_producer_may_begin_at_any_sequence(run: Run) -> None:
    assert await run.ask() is None
    assert (await run.produce(4711)).kind is Kind.STORED
    assert await run.ask() == RunState(0, 4720)


@about_producers
async def test_sequences_wrap_after_two_to_the_thirty_one(run: Run) -> None:
    assert (await run.produce(MODULUS - 15)).kind is Kind.STORED
    assert (await run.produce(MODULUS - 5)).kind is Kind.STORED
    assert await run.ask() == RunState(0, 4)
    assert await run.produce(MODULUS - 5) == Outcome(Kind.DUPLICATE, 10)
    assert await run.produce(5) == Outcome(Kind.STORED, 20)


@about_producers
async def test_a_batch_may_end_right_at_the_wrap_and_the_next_begins_at_zero(run: Run) -> None:
    assert (await run.produce(MODULUS - 10)).kind is Kind.STORED
    assert await run.ask() == RunState(0, MODULUS - 1)
    assert refused(await run.produce(1), Code.OUT_OF_ORDER)
    assert await run.produce(0) == Outcome(Kind.STORED, 10)
    assert await run.ask() == RunState(0, 9)


async def test_a_flipped_bit_is_refused_and_appends_nothing(harness: Harness, run: Run) -> None:
    """By Kafka with a code that says that the way there may be to blame: the receiver has checked what it sends."""
    damaged = bytearray(batch(run.producer_id, 0))
    damaged[-1] ^= 1
    code = Code.INVALID_RECORD if isinstance(harness, KafkaHarness) else Code.CORRUPT
    assert refused(await harness.sink.produce(run.topic, 0, memoryview(damaged)), code)
    assert await run.ask() is None


async def test_a_batch_over_the_topics_limit_is_too_large_and_one_within_it_is_not(harness: Harness, run: Run) -> None:
    info = await harness.sink.topic(run.topic)
    empty = len(batch(run.producer_id, 0, records=[b"x" * 1000], codec=Codec.NONE)) - 1000
    fitting = info.max_message_bytes - empty - 16  # lengths of records take a few bytes more
    large = batch(run.producer_id, 0, records=[b"x" * (fitting + 32)], codec=Codec.NONE)
    assert len(large) > info.max_message_bytes
    assert refused(await harness.sink.produce(run.topic, 0, large), Code.TOO_LARGE)
    small = batch(run.producer_id, 0, records=[b"x" * fitting], codec=Codec.NONE)
    assert len(small) > info.max_message_bytes - 32
    assert (await harness.sink.produce(run.topic, 0, small)).kind is Kind.STORED


async def test_a_partition_that_does_not_exist_is_a_missing_topic(harness: Harness, run: Run) -> None:
    outcome = await harness.sink.produce(run.topic, 99, batch(run.producer_id, 0))
    assert refused(outcome, Code.TOPIC_MISSING)


@about_producers
@pytest.mark.parametrize("how", ["restart", "crash"])
async def test_what_is_stored_is_known_exactly_after_a_restart(harness: Harness, run: Run, how: str) -> None:
    cluster_id, topic = harness.sink.cluster_id, await harness.sink.topic(run.topic)
    for number in range(3):
        await run.produce(10 * number)
    await (harness.restart() if how == "restart" else harness.crash())
    assert await run.ask() == RunState(0, 29)
    async with asyncio.timeout(30):
        while refused(outcome := await run.produce(50), Code.UNAVAILABLE):  # a leader that has just come back
            await asyncio.sleep(0.1)
    assert refused(outcome, Code.OUT_OF_ORDER)
    assert await run.produce(20) == Outcome(Kind.DUPLICATE, 20)
    assert await run.produce(30) == Outcome(Kind.STORED, 30)
    assert harness.sink.cluster_id == cluster_id
    assert await harness.sink.topic(run.topic) == topic
    assert harness.values(run.topic) == values(40)


async def test_producer_ids_are_never_handed_out_twice(harness: Harness) -> None:
    granted = await asyncio.gather(*(eventually(harness.sink.new_producer_id) for _ in range(20)))
    await harness.restart()
    granted += await asyncio.gather(*(eventually(harness.sink.new_producer_id) for _ in range(20)))
    assert len(set(granted)) == 40


async def test_a_topic_has_facts_that_stay_and_an_id_of_its_own(harness: Harness, run: Run, topic_name: str) -> None:
    topic = await harness.sink.topic(run.topic)
    other = await eventually(lambda: harness.sink.topic(topic_name + "-other"))
    assert (topic.name, topic.partition_count, topic.max_message_bytes) == (run.topic, 1, 1_048_588)
    assert topic.topic_id
    assert topic.topic_id != other.topic_id
    assert harness.sink.cluster_id
    assert harness.sink.health() == {}


async def test_many_producers_at_once_are_all_stored(harness: Harness, run: Run) -> None:
    async def one(producer_id: int) -> list[Kind]:
        made = [batch(producer_id, 3 * number, records=3) for number in range(20)]
        return [(await harness.sink.produce(run.topic, 0, each)).kind for each in made]

    producers = [await eventually(harness.sink.new_producer_id) for _ in range(8)]
    answers = await asyncio.gather(*map(one, producers))
    assert {kind for kinds in answers for kind in kinds} == {Kind.STORED}
    assert sorted(harness.values(run.topic)) == sorted(8 * values(60))


def test_every_sink_that_a_configuration_can_name_is_in_this_suite() -> None:
    names = {str(kind.__struct_config__.tag) for kind in get_args(AnySink)}
    assert names == {"log", "kafka"}


async def test_a_sinks_section_answers_what_the_receiver_asks_of_it(harness: Harness) -> None:
    assert isinstance(harness, LogHarness | KafkaHarness)
    settings: Settings = harness.settings
    assert settings.location.startswith(f"{harness.sink.name} at ")
    assert list(settings.check()) == []
    assert (settings.tls, settings.modes) == (None, frozenset())
    assert settings.one_process is (settings.log_directory is not None)


@asynccontextmanager
async def reading(harness: Harness) -> AsyncIterator[Reader]:
    assert isinstance(harness, LogHarness | KafkaHarness)
    reader = make_reader(harness.settings)
    await reader.start()
    yield reader
    await reader.close()


async def test_a_reader_reads_what_is_stored_while_the_sink_runs(harness: Harness, run: Run) -> None:
    for number in range(3):
        await run.produce(10 * number)
    async with reading(harness) as reader:
        assert [value async for value in reader.read_all(run.topic)] == values(30)
        assert await eventually(lambda: reader.ask(run.topic, 0, run.producer_id)) == RunState(0, 29)
        assert await reader.ask(run.topic, 0, run.producer_id + 1_000_000) is None
    assert await run.produce(30) == Outcome(Kind.STORED, 30), "the sink itself goes on"


async def test_a_reader_creates_no_topic(harness: Harness, run: Run, topic_name: str) -> None:
    async with reading(harness) as reader:
        for _ in range(2):
            with pytest.raises(SinkUnavailable) as missing:
                assert [value async for value in reader.read_all(f"{topic_name}-missing")]
            assert missing.value.code is Code.TOPIC_MISSING
            with pytest.raises(SinkUnavailable):
                await reader.ask(f"{topic_name}-missing", 0, 1)
