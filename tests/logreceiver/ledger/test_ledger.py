"""The ledger: what its entries add up to, and that it is written once, in bounded memory, without delaying batches."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from logreceiver.commands.ledger import answers, show
from logreceiver.ledger import writer as ledger
from logreceiver.ledger.answer import Account, Answer, Books, Tails, is_wrong
from logreceiver.ledger.coverage import Coverage, Intervals
from logreceiver.ledger.records import BatchEntry, Entry, ReportEntry, decode, encode
from logreceiver.ledger.writer import Ledger
from logreceiver.metrics import ReceiverMetrics
from logreceiver.sinks import Kind, Outcome, RunState, TopicInfo
from logreceiver.sinks import settings as sink_settings
from logreceiver.sinks.log.reader import LogReader
from logreceiver.sinks.log.sink import LogSink, read_records
from streams.errors import Code
from streams.records.batch import SEQUENCES
from streams.telemetry.metrics import CollectorRegistry
from tests.support.patience import PATIENCE_SECONDS
from tests.support.sinks import Unsteady

TOPIC = "logfwd.ledger"


def batch(base_sequence: int, records: int = 10, offset: int | None = None, **changes: Any) -> BatchEntry:
    """An entry; its offset is its sequence unless given."""
    fields: dict[str, Any] = {
        "time_ms": 1000,
        "stream": "http",
        "twin_of": "",
        "identity": "spiffe://test/a",
        "forwarder_id": "f",
        "boot_id": "b1",
        "run": 1,
        "producer_id": 7,
        "producer_epoch": 0,
        "base_sequence": base_sequence,
        "records": records,
        "bytes": 100,
        "topic": "http",
        "partition": 0,
        "first_offset": base_sequence if offset is None else offset,
        "last_offset": -1,
        "outcome": "stored",
        "mode": "classical",
        "group": "X25519",
        "tls_version": "TLSv1.3",
        "session_id": "s",
        "authentication": "ecdsa_secp256r1_sha256",
    }
    return BatchEntry(**{**fields, **changes})


def repeat(base_sequence: int, records: int = 10, **changes: Any) -> BatchEntry:
    return batch(base_sequence, records, **{"outcome": "duplicate", **changes})


def report(accepted: int, acknowledged: int | None = None, **changes: Any) -> ReportEntry:
    fields: dict[str, Any] = {
        "time_ms": 2000,
        "stream": "http",
        "twin_of": "",
        "identity": "spiffe://test/a",
        "forwarder_id": "f",
        "boot_id": "b1",
        "run": 1,
        "accepted": accepted,
        "acknowledged": accepted if acknowledged is None else acknowledged,
        "dropped": 0,
        "dead_lettered": 0,
        "resets": 0,
    }
    return ReportEntry(**{**fields, **changes})


def coverage(*entries: BatchEntry) -> Coverage:
    made = Coverage()
    for entry in entries:
        made.add(entry)
    return made


def answer(*entries: Entry, tails: Tails | None = None) -> Answer:
    account = Account(entries[0])
    for entry in entries:
        account.add(entry)
    return account.answer(tails)


def sums(made: Coverage) -> tuple[int, int, int]:
    return made.in_ledger, made.holes, made.twice


# -- sequences ---------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 12)), min_size=1))
def test_intervals_count_what_a_set_of_numbers_counts(added: list[tuple[int, int]]) -> None:
    intervals, numbers = Intervals(), set[int]()
    for start, length in added:
        new = set(range(start, start + length))
        assert intervals.add(start, start + length) == len(new & numbers)
        numbers |= new
        assert (intervals.total, intervals.first, intervals.end) == (len(numbers), min(numbers), max(numbers) + 1)


def test_batches_that_follow_each_other_are_covered_without_a_hole() -> None:
    assert sums(coverage(batch(0), batch(10), batch(20, 5))) == (25, 0, 0)


def test_a_hole_is_counted_and_a_recognised_repeat_closes_it() -> None:
    assert sums(coverage(batch(0), batch(20))) == (20, 10, 0)
    assert sums(coverage(batch(0), batch(20), repeat(10))) == (30, 0, 0)


def test_a_run_without_its_first_entries_begins_with_a_hole() -> None:
    made = coverage(batch(30))
    assert sums(made) == (10, 30, 0)
    assert made.begins_late


def test_the_same_sequences_under_other_offsets_were_stored_twice() -> None:
    assert sums(coverage(batch(0), batch(10), batch(0, offset=500))) == (20, 0, 10)
    assert coverage(batch(0, 10), batch(5, 10, offset=500)).twice == 5


def test_a_batch_recorded_twice_under_one_offset_was_stored_once() -> None:
    assert sums(coverage(batch(0), batch(10), batch(0))) == (20, 0, 0)


def test_a_repeat_recorded_before_the_batch_itself_is_not_twice() -> None:
    assert sums(coverage(repeat(0, offset=-1), batch(0))) == (10, 0, 0)


def test_sequences_go_on_after_the_wrap() -> None:
    last = SEQUENCES - 10
    made = coverage(batch(last), batch(0), batch(20))
    assert made.in_ledger == 30
    assert made.holes == last + 10
    assert made.twice == 0


def test_an_entry_from_before_the_wrap_that_comes_late_stands_before_it() -> None:
    made = coverage(batch(0, offset=100), batch(SEQUENCES - 10, offset=90))
    assert made.in_ledger == 20
    assert made.holes == SEQUENCES - 10


def test_a_batch_may_lie_across_the_wrap() -> None:
    made = coverage(batch(SEQUENCES - 4), batch(6))
    assert (made.in_ledger, made.holes, made.twice) == (20, SEQUENCES - 4, 0)


@given(st.data())
def test_any_order_and_any_loss_of_entries_leaves_the_same_sum(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 9), min_size=2, max_size=30))
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    entries = [batch(start, size) for start, size in zip(starts, sizes, strict=True)]
    kept = [entry for entry in entries[:-1] if data.draw(st.booleans())] + entries[-1:]
    told_again = [repeat(one.base_sequence, one.records) for one in kept if data.draw(st.booleans())]
    made = coverage(*data.draw(st.permutations([*kept, *told_again])))
    assert made.in_ledger == sum(one.records for one in kept)
    assert made.stored == sum(sizes)
    assert made.twice == 0


@pytest.mark.parametrize(("last", "tail"), [(9, 0), (29, 20), (4, 0)])
def test_the_sinks_state_covers_what_lies_after_the_last_entry(last: int, tail: int) -> None:
    made = coverage(batch(0))
    made.reaches(last)
    assert made.tail == tail


def test_the_sinks_state_holds_across_the_wrap() -> None:
    made = coverage(batch(SEQUENCES - 10))
    made.reaches(4)
    assert made.tail == 5


# -- answers -----------------------------------------------------------------------------------------------------


def balance(made: Answer) -> tuple[int | None, int, int | None, int]:
    return made.sent, made.stored, made.missing, made.twice


def test_all_that_was_sent_is_stored_once() -> None:
    made = answer(batch(0), batch(10), report(20))
    assert balance(made) == (20, 20, 0, 0)
    assert made.notes == ()
    assert not is_wrong([made])


def test_runs_and_epochs_are_counted_apart_and_added_up() -> None:
    entries = [batch(0), batch(0, producer_epoch=1, offset=10), batch(0, producer_id=8, run=2, offset=20)]
    assert balance(answer(*entries, report(30))) == (30, 30, 0, 0)


def test_without_a_report_the_number_sent_is_unknown() -> None:
    made = answer(batch(0))
    assert balance(made) == (None, 10, None, 0)
    assert "not reported yet" in made.notes[0]
    assert not is_wrong([made])


def test_what_waits_at_the_forwarder_is_not_missing() -> None:
    made = answer(batch(0), report(30, 10, dropped=5, dead_lettered=3))
    assert balance(made) == (30, 10, 0, 0)
    assert (made.waiting, made.dropped, made.dead_lettered) == (12, 5, 3)


def test_batches_after_the_last_report_say_that_the_forwarder_runs() -> None:
    made = answer(batch(0), report(10), batch(10, time_ms=3000))
    assert balance(made) == (10, 20, 0, 0)
    assert "is running" in made.notes[0]


ACKNOWLEDGED_MORE = (batch(0), batch(10), report(50))
PLACE = ("http", 0, 7)


def test_what_was_acknowledged_and_is_not_in_the_sink_is_missing() -> None:
    made = answer(*ACKNOWLEDGED_MORE, tails={PLACE: RunState(0, 19)})
    assert balance(made) == (50, 20, 30, 0)
    assert is_wrong([made])


def test_what_the_ledger_saw_stored_and_the_sink_no_longer_has_is_missing() -> None:
    for entries in ((batch(0), batch(10)), (batch(0), batch(10), report(20))):
        made = answer(*entries, tails={PLACE: RunState(0, 14)})
        assert (made.stored, made.missing, made.twice) == (15, 5, 0)
        assert is_wrong([made])


def test_what_the_sink_has_after_the_last_entry_is_not_in_the_ledger_and_not_missing() -> None:
    made = answer(*ACKNOWLEDGED_MORE, tails={PLACE: RunState(0, 49)})
    assert balance(made) == (50, 50, 0, 0)
    assert made.not_in_ledger == 30
    assert "not in the ledger" in made.notes[0]


@pytest.mark.parametrize(
    ("entries", "tails", "why"),
    [
        (ACKNOWLEDGED_MORE, None, "not asked"),
        (ACKNOWLEDGED_MORE, {PLACE: None}, "no longer knows 1 of 1 runs"),
        (ACKNOWLEDGED_MORE, {PLACE: RunState(1, 9)}, "no longer knows 1 of 1 runs"),
        ((batch(0, run=5), report(50, run=5)), {PLACE: RunState(0, 9)}, "no entry of runs 1–4"),
        ((batch(10), report(50)), {PLACE: RunState(0, 19)}, "begins in the middle of a run"),
        ((batch(0), report(50, run=2)), {PLACE: RunState(0, 9)}, "nor is the run that they"),
        ((batch(0), report(50, run=-1)), {PLACE: RunState(0, 9)}, "nor is the run that they"),
        ((report(50),), {}, "nor is the run that they"),
        (
            (
                batch(0),
                batch(0, boot_id="b2", producer_id=8, run=2, time_ms=1100),
                batch(10, time_ms=70_000),
                batch(10, boot_id="b2", producer_id=8, run=2, time_ms=80_000),
                report(50),
            ),
            {PLACE: RunState(0, 19)},
            "ran at the same time",
        ),
    ],
)
def test_what_is_unknown_is_not_called_missing(
    entries: tuple[Entry, ...], tails: Mapping[tuple[str, int, int], RunState | None] | None, why: str
) -> None:
    made = answer(*entries, tails=tails)
    assert made.missing is None
    assert why in " ".join(made.notes)
    assert not is_wrong([made])


def test_more_stored_than_sent_is_twice() -> None:
    again = batch(0, producer_epoch=1, offset=20)
    made = answer(batch(0), batch(10), again, report(20, resets=1))
    assert balance(made) == (20, 20, 0, 10)
    assert made.resets == 1
    assert is_wrong([made])


def test_batches_that_are_stored_and_not_acknowledged_yet_are_not_twice() -> None:
    assert balance(answer(batch(0), batch(10), report(20, 10))) == (20, 20, 0, 0)


def test_shares_say_what_travelled_under_which_group_each_record_once() -> None:
    hybrid: dict[str, Any] = {"mode": "hybrid-preferred", "group": "X25519MLKEM768"}
    made = answer(batch(0, 30), batch(30, 10, **hybrid), repeat(0, 30, **hybrid), repeat(40, 10, **hybrid))
    assert [(share.group, share.batches, share.records, share.records_percent) for share in made.shares] == [
        ("X25519", 1, 30, 60.0),
        ("X25519MLKEM768", 2, 20, 40.0),
    ]
    assert [share.bytes_percent for share in made.shares] == [33.33, 66.67]


def test_books_hold_a_stream_and_its_twins_by_forwarder() -> None:
    books = Books("http")
    books.add(
        [
            batch(0, stream="pq", twin_of="http"),
            batch(0, stream="other"),
            batch(0, identity="spiffe://test/b"),
            batch(0),
            report(10),
        ]
    )
    found = [(account.stream, account.identity) for account in books.accounts()]
    assert found == [("http", "spiffe://test/a"), ("http", "spiffe://test/b"), ("pq", "spiffe://test/a")]


def test_an_entry_is_json_and_other_records_are_skipped() -> None:
    for entry in (batch(0), report(3)):
        assert decode(encode(entry)) == entry
    for value in (b"", b"{}", b"[1]", b'{"kind":"later"}', b"\xff", b"[" * 100_000):
        assert decode(value) is None


def test_the_answer_is_a_table_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    show([answer(batch(0), report(10))], as_json_lines=False)
    out = capsys.readouterr().out
    assert "http: sent 10, stored 10, missing 0, twice 0\n" in out
    row = ("classical", "X25519", "TLSv1.3", "ecdsa_secp256r1_sha256", "1", "10", "100.00", "%", "100", "100.00", "%")
    assert row in [tuple(line.split()) for line in out.splitlines()]


def test_batches_that_were_authenticated_differently_are_separate_shares() -> None:
    found = answer(batch(0), batch(10, authentication="mldsa65"), report(20))
    assert [(share.authentication, share.records) for share in found.shares] == [
        ("ecdsa_secp256r1_sha256", 10),
        ("mldsa65", 10),
    ]


def test_an_entry_of_a_version_that_recorded_no_authentication_counts(capsys: pytest.CaptureFixture[str]) -> None:
    old = json.loads(encode(batch(0)))
    del old["authentication"]
    entry = decode(json.dumps(old).encode())
    assert entry is not None
    show([answer(entry, report(10))], as_json_lines=False)
    assert "TLSv1.3  –" in capsys.readouterr().out


# -- writing -----------------------------------------------------------------------------------------------------


UNCERTAIN = Outcome(Kind.UNCERTAIN, code=Code.TIMED_OUT)
REFUSED = Outcome(Kind.REFUSED, code=Code.UNAVAILABLE, text="no broker answers")
OUT_OF_ORDER = Outcome(Kind.REFUSED, code=Code.OUT_OF_ORDER)
FENCED = Outcome(Kind.REFUSED, code=Code.FENCED)
TOO_LARGE = Outcome(Kind.REFUSED, code=Code.TOO_LARGE)
STORED: tuple[bool, Outcome | None] = (True, None)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting: neither to gather nor after a failure."""
    monkeypatch.setattr(ledger, "LINGER_SECONDS", 0.0)
    monkeypatch.setattr(ledger, "FIRST_PAUSE_SECONDS", 0.0)


@pytest.fixture
def metrics() -> ReceiverMetrics:
    return ReceiverMetrics(CollectorRegistry())


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[LogSink]:
    sink = LogSink(sink_settings.LogSink(directory=tmp_path, partition_count=3))
    await sink.start()
    yield sink
    await sink.close()


def entries(directory: Path) -> Iterator[Entry | None]:
    return (decode(record.value or b"") for record in read_records(directory, TOPIC))


def sequences(directory: Path) -> list[int]:
    return [entry.base_sequence for entry in entries(directory) if isinstance(entry, BatchEntry)]


def dropped(metrics: ReceiverMetrics) -> float:
    return float(metrics.ledger_dropped._value.get())


@asynccontextmanager
async def writing(sink: Unsteady, metrics: ReceiverMetrics) -> AsyncIterator[Ledger]:
    async with Ledger(TOPIC, sink, metrics) as made:
        yield made


async def until_written(directory: Path, made: Ledger) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while made._waiting or made._reports:
            await asyncio.sleep(0)


async def test_entries_stand_in_the_topic_and_answer_for_the_stream(
    tmp_path: Path, log: LogSink, metrics: ReceiverMetrics
) -> None:
    async with writing(Unsteady(log, []), metrics) as made:
        made.batch(batch(0))
        made.batch(batch(10))
        made.report(report(15, 10))
        made.report(report(20))
    assert list(entries(tmp_path)) == [batch(0), batch(10), report(20)], "of two reports the newest"
    (found,) = await answers(LogReader(tmp_path), TOPIC, "http", "*")
    assert balance(found) == (20, 20, 0, 0)


@pytest.mark.parametrize(
    "script",
    [
        [(False, UNCERTAIN)],
        [(True, UNCERTAIN)],
        [(False, REFUSED)] * 3,
        [STORED, (True, UNCERTAIN), (False, UNCERTAIN)],
        [STORED, (False, UNCERTAIN), (True, UNCERTAIN), (False, REFUSED)],
        [(False, OUT_OF_ORDER)] * 2,
        [(False, FENCED)],
        [STORED, (False, TOO_LARGE), (True, UNCERTAIN), STORED, (False, UNCERTAIN)],
    ],
)
async def test_over_an_unsteady_network_each_record_is_written_once_and_in_order(
    tmp_path: Path, log: LogSink, metrics: ReceiverMetrics, script: list[tuple[bool, Outcome | None]]
) -> None:
    async with writing(Unsteady(log, script), metrics) as made:
        for round_ in range(3):
            for number in range(5):
                made.batch(batch(50 * round_ + 10 * number))
            await until_written(tmp_path, made)
    assert sorted(sequences(tmp_path)) == [10 * number for number in range(15)]
    assert dropped(metrics) == 0
    assert not script


async def test_while_the_sink_is_away_records_wait_up_to_a_bound_and_the_rest_is_counted(
    tmp_path: Path, log: LogSink, metrics: ReceiverMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(encode(batch(0)))
    monkeypatch.setattr(ledger, "MAX_WAITING_BYTES", 20 * size)
    sink = Unsteady(log, [])
    sink.away = True
    with capture_logs() as events:
        async with writing(sink, metrics) as made:
            for number in range(50):
                made.batch(batch(number % 10))
                await asyncio.sleep(0)
            assert dropped(metrics) == 30
            sink.away = False
            await until_written(tmp_path, made)
            made.batch(batch(5))
    assert len(sequences(tmp_path)) == 21, "what waited, and what came later"
    said = [entry["event"] for entry in events]
    assert said.count("ledger unavailable") == 1
    assert said.count("ledger records lost") == 1


async def test_pauses_grow_while_the_sink_is_away_and_begin_small_again_afterwards(
    tmp_path: Path, log: LogSink, metrics: ReceiverMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def at_once(seconds: float) -> None:
        if seconds:
            pauses.append(seconds)
        await sleep(0)

    monkeypatch.setattr(ledger, "FIRST_PAUSE_SECONDS", 1.0)
    monkeypatch.setattr("random.uniform", lambda *_: 1.0)
    monkeypatch.setattr(asyncio, "sleep", at_once)
    async with writing(Unsteady(log, [(False, REFUSED)] * 6 + [STORED] + [(False, REFUSED)] * 2), metrics) as made:
        for number in range(2):
            made.batch(batch(10 * number))
            await until_written(tmp_path, made)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 1.0, 2.0]


async def test_a_log_is_asked_about_a_run_only_if_records_are_unaccounted_for(
    tmp_path: Path, log: LogSink, metrics: ReceiverMetrics
) -> None:
    class Counting(LogReader):
        asked = 0

        async def ask(self, topic: str, partition: int, producer_id: int) -> RunState | None:
            self.asked += 1
            return await super().ask(topic, partition, producer_id)

    async with writing(Unsteady(log, []), metrics) as made:
        made.batch(batch(0))
        made.report(report(10))
        made.batch(batch(0, stream="dns"))
        made.report(report(20, stream="dns"))
    for stream, questions in (("http", 0), ("dns", 1)):
        reader = Counting(tmp_path)
        await answers(reader, TOPIC, stream, "*")
        assert reader.asked == questions


async def test_a_topic_that_is_gone_is_asked_for_again_so_that_it_may_be_created(
    tmp_path: Path, log: LogSink, metrics: ReceiverMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink, created = Unsteady(log, [(False, Outcome.refused(Code.TOPIC_MISSING))]), 0
    topic = sink.topic

    async def counted(name: str) -> TopicInfo:
        nonlocal created
        created += 1
        return await topic(name)

    monkeypatch.setattr(sink, "topic", counted)
    async with writing(sink, metrics) as made:
        made.batch(batch(0))
        await until_written(tmp_path, made)
    assert created == 2
    assert sequences(tmp_path) == [0]


async def test_a_sink_that_forgot_the_ledgers_producer_takes_its_batch_again_under_it(
    tmp_path: Path, log: LogSink, metrics: ReceiverMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def forgotten(*_: object) -> None:
        return None

    sink = Unsteady(log, [STORED, (False, UNCERTAIN)])
    monkeypatch.setattr(sink, "ask", forgotten)
    with capture_logs() as events:
        async with writing(sink, metrics) as made:
            for number in range(2):
                made.batch(batch(10 * number))
                await until_written(tmp_path, made)
    assert sequences(tmp_path) == [0, 10]
    assert "ledger producer replaced" not in [entry["event"] for entry in events]


async def test_totals_that_wait_are_bounded_too(
    log: LogSink, metrics: ReceiverMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "MAX_WAITING_REPORTS", 3)
    made = Ledger(TOPIC, log, metrics)
    for number in [0, 1, 2, 3, 0, 4]:
        made.report(report(20, forwarder_id=str(number)))
    assert [entry.forwarder_id for entry in made._reports.values()] == ["0", "1", "2"]
    assert dropped(metrics) == 2


async def test_a_stop_does_not_wait_for_a_sink_that_is_away(log: LogSink, metrics: ReceiverMetrics) -> None:
    sink = Unsteady(log, [])
    sink.away = True
    async with asyncio.timeout(1), writing(sink, metrics) as made:
        made.batch(batch(0))
        while not made.trouble:
            await asyncio.sleep(0)
    assert dropped(metrics) == 1


async def test_batches_of_records_keep_within_what_the_topic_takes(
    tmp_path: Path, log: LogSink, metrics: ReceiverMetrics
) -> None:
    sink = Unsteady(log, [])
    sink.max_message_bytes = 1200
    async with writing(sink, metrics) as made:
        for number in range(4):
            made.batch(batch(10 * number))
        made.batch(batch(40, stream="x" * 2000))
        made.batch(batch(50))
    assert sequences(tmp_path) == [0, 10, 20, 30, 50]
    assert sink.produced >= 3
    assert dropped(metrics) == 1


async def test_records_that_arrive_while_a_batch_is_written_are_gathered_into_the_next(
    tmp_path: Path, log: LogSink, metrics: ReceiverMetrics
) -> None:
    sink = Unsteady(log, [])
    async with writing(sink, metrics) as made:
        made.batch(batch(0))
        while not sink.produced:
            await asyncio.sleep(0)
        for number in range(1, 100):
            made.batch(batch(10 * number))
    assert len(sequences(tmp_path)) == 100
    assert sink.produced == 2
