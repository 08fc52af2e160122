"""Clients share the turns of the event loop, and leave the rest of each to others."""

from __future__ import annotations

import asyncio

from logfwd.sources.turns import SHARES, Turns


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
    async with asyncio.timeout(10):
        await asyncio.gather(*waiting[1:])
