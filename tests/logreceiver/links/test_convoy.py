"""Batches beyond a share pass in groups, in rotation, with a rest in between."""

from __future__ import annotations

import asyncio

import pytest

from logreceiver.links import convoy
from logreceiver.links.convoy import MOST_AT_ONCE, Convoy


class Sink:
    """Keeps batches until it is told to answer them all."""

    def __init__(self) -> None:
        self.convoy = Convoy()
        self.given: list[str] = []
        self.answers = asyncio.Event()

    async def batch(self, who: str) -> None:
        async with self.convoy.passing(who):
            self.given.append(who)
            await self.answers.wait()

    def ask(self, *names: str) -> list[asyncio.Task[None]]:
        return [asyncio.create_task(self.batch(name)) for name in names]


async def a_moment() -> None:
    for _ in range(4):
        await asyncio.sleep(0)


async def until(sink: Sink, count: int) -> None:
    async with asyncio.timeout(5):
        while len(sink.given) < count:
            await asyncio.sleep(0.001)


async def test_one_passes_at_once_and_the_others_together_after_its_answer_in_rotation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(convoy, "MOST_SECONDS", 60.0)
    sink = Sink()
    asked = sink.ask("a", *["a"] * MOST_AT_ONCE, "b")
    await a_moment()
    assert sink.given == ["a"]
    sink.answers.set()
    await asked[0]
    sink.answers.clear()
    await until(sink, 1 + MOST_AT_ONCE)
    await asyncio.sleep(0.01)
    assert len(sink.given) == 1 + MOST_AT_ONCE
    assert sink.given[1:3] == ["a", "b"], "b comes after one of a's"
    sink.answers.set()
    await asyncio.gather(*asked)
    assert len(sink.given) == 2 + MOST_AT_ONCE


async def test_the_sink_rests_as_long_as_it_has_worked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convoy, "MOST_SECONDS", 60.0)
    monkeypatch.setattr(convoy, "MOST_REST_SECONDS", 0.2)
    sink, loop = Sink(), asyncio.get_running_loop()
    sink.ask("a")
    await a_moment()
    await asyncio.sleep(0.1)
    sink.answers.set()
    await a_moment()
    since = loop.time()
    (late,) = sink.ask("b")
    await late
    assert loop.time() - since >= 0.09


async def test_a_batch_without_an_answer_holds_up_no_other() -> None:
    sink = Sink()
    asked = sink.ask("a", "b")
    await until(sink, 2)
    assert not any(each.done() for each in asked)
    for each in asked:
        each.cancel()


async def test_one_that_is_given_up_leaves_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convoy, "MOST_SECONDS", 60.0)
    sink = Sink()
    first, waiting, _ = sink.ask("a", "b", "c")
    await a_moment()
    waiting.cancel()
    first.cancel()
    await until(sink, 2)
    assert sink.given == ["a", "c"]
    sink.answers.set()
