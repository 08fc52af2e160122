"""Clients share the turns of the event loop, and leave the rest of each to others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from logfwd.sources import turns as turns_module
from logfwd.sources.turns import REST_SECONDS, SHARES, WORK_SECONDS, Turns
from tests.support.patience import PATIENCE_SECONDS


async def turns_of_the_loop(over: asyncio.Event) -> int:
    count = 0
    while not over.is_set():
        await asyncio.sleep(0)
        count += 1
    return count


async def test_work_waits_for_later_turns_of_the_loop_and_begins_in_order() -> None:
    turns, begun, over = Turns(), list[int](), asyncio.Event()
    others = asyncio.create_task(turns_of_the_loop(over))

    async def work(number: int) -> None:
        await turns.take()
        begun.append(number)

    await asyncio.gather(*(work(number) for number in range(10 * SHARES)))
    over.set()
    assert begun == list(range(10 * SHARES))
    assert await others >= 9, "whoever else there is had its turn after each few"


async def test_a_piece_may_take_a_whole_turn() -> None:
    turns, over = Turns(), asyncio.Event()
    others = asyncio.create_task(turns_of_the_loop(over))
    await asyncio.gather(*(turns.take(SHARES) for _ in range(10)))
    over.set()
    assert await others >= 9


async def test_one_client_alone_goes_on_at_once_until_its_share_is_used_up() -> None:
    turns = Turns()
    for _ in range(SHARES):
        waiting = turns.take()
        try:
            waiting.send(None)
        except StopIteration:
            continue
        raise AssertionError("it waits")


async def test_who_stops_waiting_takes_no_share() -> None:
    turns = Turns()
    await turns.take(SHARES)
    waiting = [asyncio.create_task(turns.take(SHARES)) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await asyncio.gather(*waiting[1:])


class Busy:
    """Clients' work on a clock of its own, and the rests that the loop takes."""

    def __init__(self, turns: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
        self._turns, self._loop, self._now, self.rests = turns, asyncio.get_running_loop(), 0.0, 0
        monkeypatch.setattr(turns_module, "time", SimpleNamespace(perf_counter=lambda: self._now))
        self._call_later = self._loop.call_later
        monkeypatch.setattr(self._loop, "call_later", self._rest)

    def _rest(self, delay: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        assert delay == REST_SECONDS
        self.rests += 1
        self._now += delay
        return self._call_later(delay, callback)

    async def work(self, seconds: float, pieces: int = 1) -> None:
        async def piece() -> None:
            await self._turns.take(SHARES)
            self._now += seconds

        await asyncio.gather(*(piece() for _ in range(pieces)))
        await asyncio.sleep(0)

    def pause(self, seconds: float) -> None:
        self._now += seconds


@pytest.mark.parametrize(("seconds", "rests"), [(WORK_SECONDS * 1.01, 40), (WORK_SECONDS * 0.26, 10)])
async def test_while_batches_are_under_way_the_loop_rests_after_some_work(
    monkeypatch: pytest.MonkeyPatch, seconds: float, rests: int
) -> None:
    busy = Busy(Turns(lambda: True), monkeypatch)
    await busy.work(seconds, 40)
    assert busy.rests == rests


async def test_without_a_batch_under_way_it_does_not_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = Busy(Turns(lambda: False), monkeypatch)
    await busy.work(WORK_SECONDS, 40)
    assert busy.rests == 0


async def test_clients_that_leave_the_loop_idle_themselves_do_not_wait_for_a_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    busy = Busy(Turns(lambda: True), monkeypatch)
    for _ in range(10):
        await busy.work(WORK_SECONDS / 2)
        busy.pause(2 * REST_SECONDS)
    assert busy.rests == 0
