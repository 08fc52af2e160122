"""A link's batches on their way to a model broker: what reaches it, how it is answered, what the ledger gets."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from logreceiver.config import Allow, Drain, Listener, ReceiverConfig
from logreceiver.ledger.records import BatchEntry, ReportEntry, decode
from logreceiver.ledger.writer import Ledger
from logreceiver.links.grants import Claim, Grants
from logreceiver.links.guest import Guest
from logreceiver.links.shared import Shared
from logreceiver.links.storing import Storing
from logreceiver.metrics import ReceiverMetrics
from logreceiver.sinks import Kind, Outcome
from logreceiver.sinks.settings import LogSink
from streams.config.sections import Tls
from streams.errors import Code, LinkError, ProtocolError
from streams.records.batch import SEQUENCES
from streams.telemetry.metrics import CollectorRegistry
from streams.wire import messages as m
from tests.support.batches import batch, values
from tests.support.facts import facts
from tests.support.patience import PATIENCE_SECONDS
from tests.support.sinks import ModelHarness, Unsteady

Step = tuple[bool, Outcome | None]

IDENTITY = "spiffe://test/host"
PARTITIONS = 3
CONFIG = ReceiverConfig(
    tls=Tls(certificate=Path("leaf.pem"), key=Path("leaf.key"), ca=Path("ca.pem")),
    grant_key_file=Path("grant.key"),
    listener=(Listener(address=":7443"),),
    allow=(Allow(identity="*", streams=("*",)),),
    sink=LogSink(directory=Path("log")),
)
NOT_YET = (Drain(topic="{stream}", until="2999-12-31"),)
LOST = Outcome(Kind.UNCERTAIN, code=Code.TIMED_OUT)
REFUSED = Outcome(Kind.REFUSED, code=Code.UNAVAILABLE, text="no leader")
STEPS: list[Step] = [(True, None), (True, LOST), (False, LOST), (False, REFUSED)]


class OneLink:
    """`Storing` between a model broker, over a network that follows a script, and a list of answers."""

    def __init__(self, script: list[Step] | None = None) -> None:
        self.broker = ModelHarness()
        self.sink = Unsteady(self.broker.sink, script or [])
        self.sink.partition_count = PARTITIONS
        self.metrics = ReceiverMetrics(CollectorRegistry())
        self.ledger = Ledger("ledger", self.sink, self.metrics)
        self.shared = Shared(CONFIG, self.sink, Grants({"1": b"k" * 32}), self.metrics, self.ledger)
        seen = facts(identities=(IDENTITY,))
        account = self.shared.posture.opened("http", IDENTITY, seen)
        hello = m.Hello(m.VERSION, "forwarder", "boot", "http", "hybrid")
        self.guest = Guest(hello, IDENTITY, seen, "10.0.0.9:1", "http", "http", account, "session")
        self.answers: list[m.Message] = []
        self.broken = False
        self.congested: asyncio.Event | None = None
        self.storing = Storing(self.guest, self.shared, self._send, self._drain, structlog.get_logger())
        self._done = 0
        self._seq = 0

    def _send(self, message: m.Message) -> None:
        if self.broken:
            raise LinkError("the link is gone")
        self.answers.append(message)

    async def _drain(self) -> None:
        if self.congested is not None:
            await self.congested.wait()
        self._done += 1

    async def does(self, *messages: m.OpenRun | m.Batch) -> list[m.Message]:
        """The answers to these messages; raises what ends the link."""
        known, wanted = len(self.answers), self._done + len(messages)
        for message in messages:
            self.storing.put(message, time.monotonic())
        worker = asyncio.create_task(self.storing.work())
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while self._done < wanted and not worker.done():
                    await asyncio.sleep(0)
            if worker.done():
                worker.result()
        finally:
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)
        return self.answers[known:]

    async def open(self, again: m.Run | None = None, *, run: int = 1) -> m.Run:
        ask = m.OpenRun(run)
        if again is not None:
            ask = m.OpenRun(run, again.topic, again.partition, again.producer_id, 0, again.grant)
        (answer,) = await self.does(ask)
        assert isinstance(answer, m.Run), answer
        return answer

    def batch(self, run: m.Run, sequence: int, *, first: int | None = None) -> m.Batch:
        """Ten records, whose numbers are their sequences unless `first` is given."""
        rows = values(10, sequence if first is None else first)
        made = batch(run.producer_id, sequence, records=rows)
        self._seq += 1
        return m.Batch(self._seq - 1, 1, 10, made)

    @property
    def stored(self) -> list[bytes]:
        return self.broker.values("http")

    @property
    def entries(self) -> list[BatchEntry]:
        found = [decode(value) for value in self.ledger._waiting]
        return [entry for entry in found if isinstance(entry, BatchEntry)]

    def counted(self, outcome: str) -> tuple[float, ...]:
        families = (self.metrics.batches, self.metrics.records, self.metrics.bytes)
        return tuple(family.labels("http", outcome)._value.get() for family in families)


def acknowledged(answers: list[m.Message]) -> int:
    """How many batches were acknowledged before the first that was not."""
    kinds = [type(answer) for answer in answers]
    return kinds.index(m.Nack) if m.Nack in kinds else len(kinds)


@given(st.lists(st.sampled_from(STEPS), max_size=12), st.integers(1, 5))
async def test_whatever_the_sink_answers_a_batch_is_acknowledged_only_if_it_is_stored_once_in_order(
    script: list[Step], window: int
) -> None:
    link = OneLink(list(script))
    run = await link.open()
    done = 0
    for _ in range(40):
        answers = await link.does(*(link.batch(run, 10 * (done + ahead)) for ahead in range(window)))
        good = acknowledged(answers)
        assert not any(isinstance(answer, m.Ack) for answer in answers[good:]), "after a refusal nothing is stored"
        done += good
        assert link.stored[: 10 * done] == values(10 * done)
        assert len(link.stored) <= 10 * (done + 1), "at most the refused batch itself is stored in addition"
        if good < len(answers):
            known = await link.open(run)
            assert known.stored_sequence + 1 in (10 * done, 10 * (done + 1)), "the forwarder hears what is stored"
        if done >= 8:
            break
    assert link.stored == values(len(link.stored)), "nothing twice"
    assert len({entry.base_sequence for entry in link.entries}) == done


async def test_a_run_of_an_old_topic_is_continued_only_while_the_rules_let_it_drain() -> None:
    link = OneLink()
    run = await link.open()
    await link.does(link.batch(run, 0))
    moved = Allow(identity="*", streams=("*",), topic="http-2")
    for drains, may in (((), False), ((Drain(topic="http", until="2020-01-01"),), False), (NOT_YET, True)):
        link.shared.config = replace(CONFIG, allow=(replace(moved, drains=drains),))
        ask = m.OpenRun(1, run.topic, run.partition, run.producer_id, 0, run.grant)
        (answer,) = await link.does(ask)
        if may:
            assert isinstance(answer, m.Run)
            assert (answer.topic, answer.stored_sequence) == ("http", 9)
        else:
            assert isinstance(answer, m.Nack)
            assert answer.code == Code.NOT_GRANTED
            assert "topic http is not this stream's any more" in answer.text


async def test_a_batch_is_in_the_ledger_although_its_answer_is_lost_with_the_link() -> None:
    link = OneLink()
    run = await link.open()
    link.broken = True
    with pytest.raises(LinkError):
        await link.does(link.batch(run, 0))
    (entry,) = link.entries
    assert (entry.base_sequence, entry.records, entry.outcome) == (0, 10, "stored")


async def test_entries_name_where_a_batch_is_and_a_repeat_is_a_duplicate() -> None:
    link = OneLink([(True, None), (True, LOST), (True, None)])
    run = await link.open()
    await link.does(link.batch(run, 0), link.batch(run, 10))
    again = await link.open(run)
    await link.does(link.batch(again, 10))
    first, second = link.entries
    assert (first.outcome, first.first_offset, first.last_offset) == ("stored", 0, 9)
    assert (second.outcome, second.first_offset, second.last_offset) == ("duplicate", 10, 19)
    assert (second.topic, second.partition, second.producer_id) == ("http", run.partition, run.producer_id)
    assert link.counted("stored")[:2] == (1, 10)
    assert link.counted("duplicate")[:2] == (1, 10)
    assert link.counted("uncertain")[:2] == (1, 10)
    assert link.guest.account.bytes == sum(link.counted(kind)[2] for kind in ("stored", "duplicate", "uncertain"))


async def test_an_uncertain_batch_is_never_refused_for_good() -> None:
    link = OneLink([(False, Outcome(Kind.UNCERTAIN, code=Code.INVALID_RECORD))])
    run = await link.open()
    (answer,) = await link.does(link.batch(run, 0))
    assert isinstance(answer, m.Nack)
    assert (answer.uncertain, answer.permanent) == (True, False)


async def test_a_batch_refused_for_its_records_hears_what_else_its_partition_stored_meanwhile() -> None:
    suspected = Outcome(Kind.REFUSED, code=Code.INVALID_RECORD)
    link = OneLink([(False, suspected), (False, suspected), (True, None), (True, None), (False, suspected)])
    run = await link.open()
    heard = []
    for _ in range(3):
        again = await link.open(run)
        (answer,) = await link.does(link.batch(again, 0))
        assert isinstance(answer, m.Nack)
        heard.append((answer.stored_meanwhile, answer.permanent))
        if len(heard) == 2:
            neighbour = await link.open(run=1)
            neighbour = await link.open(replace(neighbour, partition=run.partition))
            await link.does(link.batch(neighbour, 0), link.batch(neighbour, 10))
    assert heard == [(0, False), (0, False), (2, False)]


@pytest.mark.parametrize(("flipped", "announced"), [(True, 10), (False, 9)])
async def test_a_batch_that_is_not_what_it_claims_is_refused_for_good_and_never_reaches_the_sink(
    flipped: bool, announced: int
) -> None:
    link = OneLink()
    run = await link.open()
    made = bytearray(batch(run.producer_id, 0))
    made[-1] ^= flipped
    answers = await link.does(m.Batch(0, 1, announced, memoryview(made)), link.batch(run, 10))
    refusals = [answer for answer in answers if isinstance(answer, m.Nack)]
    assert [(each.code, each.permanent) for each in refusals] == [(Code.CORRUPT, True), (Code.NOT_TRIED, False)]
    assert link.sink.produced == 0
    assert link.entries == []


async def test_nothing_is_produced_while_the_forwarder_does_not_read_its_answers() -> None:
    link = OneLink()
    run = await link.open()
    link.congested = asyncio.Event()
    both = asyncio.create_task(link.does(link.batch(run, 0), link.batch(run, 10)))
    for _ in range(20):
        await asyncio.sleep(0)
    assert link.sink.produced == 1
    link.congested.set()
    await both
    assert link.stored == values(20)


async def test_sequences_go_on_after_the_wrap() -> None:
    link = OneLink()
    run = await link.open()
    made = [link.batch(run, at % SEQUENCES, first=at) for at in (SEQUENCES - 10, SEQUENCES, SEQUENCES + 10)]
    answers = await link.does(*made)
    assert [type(answer) for answer in answers] == [m.Ack] * 3


async def test_a_batch_of_another_producer_or_out_of_sequence_ends_the_link_before_the_sink_sees_it() -> None:
    for other, epoch, sequence, code in [
        (1, 0, 10, Code.NOT_GRANTED),
        (0, 1, 10, Code.NOT_GRANTED),
        (0, 0, 20, Code.BAD_SEQUENCE),
    ]:
        link = OneLink()
        run = await link.open()
        stamped = batch(run.producer_id + other, sequence, producer_epoch=epoch)
        with pytest.raises(ProtocolError) as ended:
            await link.does(link.batch(run, 0), m.Batch(1, 1, 10, stamped))
        assert ended.value.code is code
        assert link.stored == values(10)


@pytest.mark.parametrize("asked", [-1, 3, 1_000_000])
async def test_a_new_run_gets_a_partition_that_exists_and_the_one_that_was_asked_for_if_it_does(asked: int) -> None:
    link = OneLink()
    (answer,) = await link.does(m.OpenRun(1, partition=asked))
    assert isinstance(answer, m.Run)
    assert 0 <= answer.partition < PARTITIONS
    for partition in range(PARTITIONS):
        (answer,) = await link.does(m.OpenRun(2, partition=partition))
        assert isinstance(answer, m.Run)
        assert answer.partition == partition
        claim = Claim(IDENTITY, "http", link.sink.cluster_id, "http", partition, answer.producer_id)
        assert link.shared.grants.honours(answer.grant, claim)


async def test_a_run_that_cannot_be_opened_is_answered_and_the_link_goes_on() -> None:
    link = OneLink()
    link.sink.away = True
    (refused,) = await link.does(m.OpenRun(1))
    assert isinstance(refused, m.Nack)
    assert (refused.seq, refused.code) == (-1, Code.UNAVAILABLE)
    link.sink.away = False
    run = await link.open()
    (foreign,) = await link.does(m.OpenRun(1, "other", run.partition, run.producer_id, 0, run.grant))
    assert isinstance(foreign, m.Nack)
    assert (foreign.seq, foreign.code) == (-1, Code.NOT_GRANTED)


async def test_totals_go_to_the_ledger_under_the_run_that_is_open() -> None:
    link = OneLink()
    link.storing.keep_report(m.Report("http", "boot", 5, 0, 0, 0, 0))
    (before,) = link.ledger._reports.values()
    await link.open(run=4)
    link.storing.keep_report(m.Report("http", "boot", 20, 10, 1, 2, 3))
    (after,) = link.ledger._reports.values()
    assert isinstance(after, ReportEntry)
    assert (before.run, after.run) == (-1, 4)
    assert (after.accepted, after.acknowledged, after.dropped, after.dead_lettered, after.resets) == (20, 10, 1, 2, 3)


async def test_what_comes_after_the_end_was_asked_for_is_not_stored() -> None:
    link = OneLink()
    run = await link.open()
    worker = asyncio.create_task(link.storing.work())
    await asyncio.sleep(0)  # it waits for work
    ended = list[bool]()
    link.storing.finish(lambda: ended.append(True))
    link.storing.put(link.batch(run, 0), time.monotonic())
    await asyncio.wait_for(worker, 5)
    assert (ended, link.stored) == ([True], [])


async def test_a_batch_that_waits_for_its_time_is_not_stored_after_the_end_was_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    link = OneLink()
    run = await link.open()
    monkeypatch.setattr(link.storing._conduct, "early", lambda *_: 0.01)
    worker = asyncio.create_task(link.storing.work())
    link.storing.put(link.batch(run, 0), time.monotonic())
    await asyncio.sleep(0)
    assert link.storing._busy
    ended = list[bool]()
    link.storing.finish(lambda: ended.append(True))
    assert not ended
    await asyncio.wait_for(worker, 5)
    assert (ended, link.stored) == ([True], [])
