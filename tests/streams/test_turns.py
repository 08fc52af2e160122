"""Turns of the loop: one piece of work in each, and everybody in rotation."""

from __future__ import annotations

import asyncio
import time

import pytest

from streams.turns import LONG_SECONDS, Turns
from tests.support.patience import PATIENCE_SECONDS


async def test_a_piece_is_done_at_once_if_it_is_the_first_of_its_turn() -> None:
    turns, done = Turns(), list[str]()
    turns.ask("a", lambda: done.append("a"))
    turns.ask("b", lambda: done.append("b"))
    assert done == ["a"]
    await asyncio.sleep(0)
    assert done == ["a", "b"]


async def test_between_two_pieces_the_loop_does_everything_else() -> None:
    turns, done, looks = Turns(), list[int](), list[int]()
    for number in range(10):
        turns.ask("flood", lambda number=number: done.append(number))  # type: ignore[misc]
    while len(done) < 10:
        looks.append(len(done))
        await asyncio.sleep(0)
    assert sorted(set(looks)) == list(range(1, 10))


async def test_who_asks_for_little_waits_for_one_piece_of_each_other() -> None:
    turns, done = Turns(), list[str]()
    for who in ("x", "x", "x", "y", "y", "y", "z"):
        turns.ask(who, lambda who=who: done.append(who))  # type: ignore[misc]
    await turns.take("last")
    while len(done) < 7:
        await asyncio.sleep(0)
    assert done == ["x", "x", "y", "z", "x", "y", "y"]


async def test_what_has_begun_goes_on_before_anything_begins() -> None:
    turns, done = Turns(), list[str]()
    for who, goes_on in (("x", False), ("x", False), ("y", False), ("y", True), ("z", True), ("z", True)):
        turns.ask(who, lambda what=f"{who}{goes_on:d}": done.append(what), goes_on=goes_on)  # type: ignore[misc]
    while len(done) < 6:
        await asyncio.sleep(0)
    assert done == ["x0", "y1", "z1", "z1", "x0", "y0"]


async def test_who_no_longer_waits_takes_nothing_from_others() -> None:
    turns = Turns()
    turns.ask("x", lambda: None)
    left = asyncio.create_task(turns.take("x"))
    stays = asyncio.create_task(turns.take("y"))
    await asyncio.sleep(0)
    left.cancel()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await stays


@pytest.mark.parametrize("piece_seconds", [0.005, 0.0001], ids=["long", "short"])
async def test_pieces_and_what_follows_from_them_leave_the_loop_half_of_its_time(piece_seconds: float) -> None:
    turns, busy, started = Turns(), 0.0, time.perf_counter()

    async def work() -> None:
        nonlocal busy
        await turns.take("flood")
        begun = time.thread_time()
        while (taken := time.thread_time() - begun) < piece_seconds:
            pass
        busy += taken

    await asyncio.gather(*(work() for _ in range(int(0.05 / piece_seconds))))
    await turns.take("flood")
    assert busy <= 0.6 * (time.perf_counter() - started)


async def test_without_rests_there_is_one_piece_in_each_turn_of_the_loop() -> None:
    turns, rounds, seen = Turns(rests=False), 0, list[int]()

    def work() -> None:
        seen.append(rounds)
        until = time.thread_time() + 2 * LONG_SECONDS
        while time.thread_time() < until:
            pass

    for _ in range(5):
        turns.ask("one", work)
    while len(seen) < 5:
        await asyncio.sleep(0)
        rounds += 1
        assert rounds <= 20, "it rests"
    assert len(set(seen[1:])) == 4, "the first one is done at once"
