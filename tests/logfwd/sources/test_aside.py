"""Long work of clients is done on a thread that others can interrupt."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator

import pytest

from logfwd.sources.aside import WORK_SECONDS, Aside, Work, at_once


def numbers(count: int, busy_seconds: float = 0.0) -> Work[list[int]]:
    found = []
    for number in range(count):
        until = time.perf_counter() + busy_seconds
        while time.perf_counter() < until:
            pass
        found.append(number)
        yield
    return found


def failing() -> Work[None]:
    yield
    raise ValueError("of its own")


@pytest.fixture
def only_pauses_give_way() -> Iterator[None]:
    """A thread that computes keeps all others waiting until it sleeps."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(60)
    yield
    sys.setswitchinterval(before)


async def test_work_has_its_result_and_its_error_aside_and_at_once() -> None:
    aside = Aside()
    assert await aside.run(numbers(1000)) == at_once(numbers(1000)) == list(range(1000))
    assert await aside.call(lambda: 7) == 7
    for work in (aside.run(failing()), asyncio.to_thread(at_once, failing())):
        with pytest.raises(ValueError, match="of its own"):
            await work


async def test_the_loop_has_its_turns_between_the_steps(only_pauses_give_way: None) -> None:
    most = 0
    for _ in range(5):  # a busy machine may wake the loop only when a pause is over
        work, turns = asyncio.create_task(Aside().run(numbers(50, busy_seconds=0.002))), 0
        while not work.done():
            await asyncio.sleep(0.0005)
            turns += 1
        assert len(work.result()) == 50
        most = max(most, turns)
    assert most > 20


async def test_while_batches_are_under_way_the_thread_pauses_as_long_as_it_works() -> None:
    started = time.perf_counter()
    await Aside(lambda: True).run(numbers(100, busy_seconds=WORK_SECONDS))
    assert time.perf_counter() - started >= 99 * 2 * WORK_SECONDS
