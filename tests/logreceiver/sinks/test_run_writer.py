"""Each batch is stored once, whatever becomes of requests and answers; and what cannot be known ends the run."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logreceiver.sinks import Kind, Outcome, RunState
from logreceiver.sinks.run_writer import RunLost, RunWriter
from streams.errors import Code, SinkUnavailable
from streams.records.batch import SEQUENCES, Codec, build
from tests.support.batches import values
from tests.support.sinks import ModelHarness, Unsteady

Step = tuple[bool, Outcome | None]

LOST = Outcome(Kind.UNCERTAIN, code=Code.TIMED_OUT)
REFUSED = Outcome(Kind.REFUSED, code=Code.UNAVAILABLE)
TOO_LARGE = Outcome(Kind.REFUSED, code=Code.TOO_LARGE, text="a megabyte too much")
OUT_OF_ORDER = Outcome(Kind.REFUSED, code=Code.OUT_OF_ORDER)
FENCED = Outcome(Kind.REFUSED, code=Code.FENCED)

STEPS: list[Step] = [(True, None), (True, LOST), (False, LOST), (False, REFUSED), (False, OUT_OF_ORDER)]


class Bench:
    """A writer to a model broker, over a network that follows a script."""

    def __init__(self, script: list[Step], *, may_forget: bool = False) -> None:
        self.broker = ModelHarness()
        self.sink = Unsteady(self.broker.sink, script)
        self.troubles: list[Code] = []
        self.writer = RunWriter(self.sink, "topic", 0, 7, self._trouble, may_forget=may_forget)

    async def _trouble(self, code: Code, text: str) -> None:
        self.troubles.append(code)
        if len(self.troubles) > 20:
            raise SinkUnavailable(code, "given up")
        self.sink.away = False

    async def store(self, number: int) -> Outcome:
        made = build(values(10, 10 * number), timestamp_ms=int(time.time() * 1000), codec=Codec.NONE)
        return await self.writer.store(made)

    @property
    def stored(self) -> list[bytes]:
        return self.broker.values("topic")


@given(st.lists(st.sampled_from(STEPS), max_size=8))
async def test_over_any_network_each_batch_is_stored_once_and_in_order(script: list[Step]) -> None:
    bench = Bench(list(script))
    stored = 0
    try:
        for number in range(4):
            await bench.store(number)
            stored += 10
    except RunLost:
        assert OUT_OF_ORDER in [heard for _, heard in script]
    assert bench.writer.next_sequence == stored
    assert bench.stored[:stored] == values(stored), "in order, without a repeat"
    assert len(bench.stored) in (stored, stored + 10), "beyond it at most the batch in hand"


async def test_a_batch_refused_for_what_it_is_leaves_the_run_as_it_was() -> None:
    bench = Bench([(True, None), (False, TOO_LARGE)])
    await bench.store(0)
    assert await bench.store(1) == TOO_LARGE
    assert (await bench.store(1)).kind is Kind.STORED
    assert bench.stored == values(20)
    assert bench.troubles == []


async def test_the_sink_is_asked_until_it_answers_before_anything_is_sent_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench([(True, LOST)])
    bench.sink.away = True
    assert (await bench.store(0)).kind is Kind.DUPLICATE
    assert bench.troubles == [Code.TIMED_OUT]
    assert bench.sink.produced == 2

    async def unavailable(*_: object) -> RunState | None:
        raise SinkUnavailable(Code.TOPIC_MISSING, "gone")

    bench = Bench([(False, LOST)])
    monkeypatch.setattr(bench.sink, "ask", unavailable)
    with pytest.raises(SinkUnavailable, match="given up"):
        await bench.store(0)
    assert bench.sink.produced == 1
    assert set(bench.troubles[1:]) == {Code.TOPIC_MISSING}


@pytest.mark.parametrize(
    ("script", "code"),
    [([(False, FENCED)], Code.FENCED), ([(False, OUT_OF_ORDER), (False, OUT_OF_ORDER)], Code.OUT_OF_ORDER)],
)
async def test_a_sink_that_contradicts_itself_ends_the_run(script: list[Step], code: Code) -> None:
    bench = Bench(script)
    with pytest.raises(RunLost) as lost:
        await bench.store(0)
    assert lost.value.code is code
    assert bench.stored == []


@pytest.mark.parametrize("state", [RunState(0, 4), RunState(0, 29), RunState(1, 9)])
async def test_a_state_that_is_neither_end_ends_the_run(state: RunState, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench([(True, None), (False, LOST)])

    async def elsewhere(*_: object) -> RunState | None:
        return state

    await bench.store(0)
    monkeypatch.setattr(bench.sink, "ask", elsewhere)
    with pytest.raises(RunLost, match="expected last sequence 9 or 19"):
        await bench.store(1)
    assert bench.sink.produced == 2


async def test_a_sink_that_forgot_the_producer_is_believed_only_by_a_writer_that_may_repeat(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for may_forget in (False, True):
        bench = Bench([(True, None), (False, LOST)], may_forget=may_forget)

        async def forgotten(*_: object) -> RunState | None:
            return None

        await bench.store(0)
        monkeypatch.setattr(bench.sink, "ask", forgotten)
        if may_forget:
            assert (await bench.store(1)).kind is Kind.STORED
        else:
            with pytest.raises(RunLost):
                await bench.store(1)


async def test_sequences_go_on_after_the_wrap() -> None:
    bench = Bench([(True, None), (True, LOST), (False, LOST)])
    bench.writer.next_sequence = SEQUENCES - 10
    for number in range(3):
        await bench.store(number)
    assert bench.stored == values(30)
    assert bench.writer.next_sequence == SEQUENCES + 20
