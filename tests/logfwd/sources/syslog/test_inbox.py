"""Messages between listeners and pipeline: bounded, in order, and given back only when they are durable."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest

from logfwd.intake.batcher import Portion
from logfwd.sources.front import Front
from logfwd.sources.position import Block
from logfwd.sources.syslog.inbox import LARGE_BYTES, Inbox, Records, inbox_of


def message(number: int) -> bytes:
    return b"<13>app: %d" % number


def numbers(blocks: list[Block]) -> list[int]:
    return [int(json.loads(line)["message"]) for block in blocks for line in block.data.splitlines()]


async def test_an_inbox_takes_all_or_nothing_and_room_comes_back_with_the_commit() -> None:
    front, one = Front(max_bytes=1000), Records([message(0)])
    inbox = Inbox(front, max_bytes=3 * one.byte_count)
    assert all(inbox.put(Records([message(number)])) for number in range(2))
    assert not inbox.put(Records([message(2), message(3)])), "neither of them"
    assert inbox.put(Records([message(2)]))
    waiting = asyncio.ensure_future(inbox.wait_and_put(Records([message(3)])))
    blocks = list(inbox.rest(1 << 20))
    assert numbers(blocks) == [0, 1, 2]
    await asyncio.sleep(0.01)
    assert not waiting.done(), "handed over is not durable"
    inbox.committed(Portion(blocks).positions())
    await asyncio.wait_for(waiting, 1)
    assert inbox.lag_bytes() == one.byte_count
    assert numbers(list(inbox.rest(1 << 20))) == [3]


async def test_the_budget_of_all_streams_holds_for_each() -> None:
    one = Records([message(0)])
    front = Front(max_bytes=one.byte_count)
    first, second = (Inbox(front, max_bytes=1 << 20) for _ in range(2))
    assert first.put(one)
    assert not second.put(one)
    waiting = asyncio.ensure_future(second.wait_and_put(one))
    first.committed(Portion(list(first.rest(1 << 20))).positions())
    await asyncio.wait_for(waiting, 1)


async def test_what_is_larger_than_the_room_is_taken_when_nothing_else_is_there() -> None:
    inbox = Inbox(Front(), max_bytes=10)
    assert inbox.put(Records([message(0)]))
    assert not inbox.put(Records([message(1)]))


async def test_blocks_hold_what_has_come_up_to_their_size_and_the_next_pipeline_gets_them_again() -> None:
    inbox = inbox_of(Front(), "s")
    size = Records([message(0)]).byte_count
    assert inbox.put(Records([message(number) for number in range(5)]))
    for _ in range(2):
        got = list[Block]()
        async with contextlib.aclosing(inbox.blocks({}, 2 * size)) as blocks:
            for _ in range(3):
                got.append(await anext(blocks))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await anext(blocks)
        assert [len(numbers([block])) for block in got] == [2, 2, 1]
        assert numbers(got) == [0, 1, 2, 3, 4]


async def test_what_is_not_a_message_is_passed_on_whole_with_its_newlines() -> None:
    inbox = Inbox(Front(), max_bytes=1 << 20)
    assert inbox.put(Records([b"one\nrecord", message(1), b""]))
    (block,) = inbox.rest(1 << 20)
    assert block.ends is not None
    assert block.data[: block.ends[0]] == b"one\nrecord"
    assert json.loads(block.data[block.ends[0] : block.ends[1]])["message"] == "1"
    assert inbox.put(Records([b"<13>valid but half", message(2)], parse=False))
    (block,) = inbox.rest(1 << 20)
    assert block.data == b"<13>valid but half\n" + message(2) + b"\n"


# -- large messages ------------------------------------------------------------------------------------------------


def large(number: int) -> bytes:
    """A message whose record is larger than itself."""
    return b'<13>1 - - app - - [a@1 n="%d" q="%b"]' % (number, b"\t" * LARGE_BYTES)


def ids(blocks: list[Block]) -> list[int]:
    records = [json.loads(line) for block in blocks for line in block.data.splitlines()]
    return [int(each["message"] if "message" in each else each["structured_data"]["a@1"]["n"]) for each in records]


async def test_large_messages_are_parsed_for_their_block_in_order_and_count_as_what_they_become() -> None:
    front = Front()
    inbox = inbox_of(front, "s")
    for number in range(0, 20, 2):
        assert inbox.put(Records([large(number), message(number + 1)]))
    taken = inbox.lag_bytes()
    assert taken < 10 * 1.1 * LARGE_BYTES
    for size in (3 * LARGE_BYTES, 1):  # the next pipeline gets all of them again
        got = list[Block]()
        async with contextlib.aclosing(inbox.blocks({}, size)) as blocks:
            while ids(got) != list(range(20)):
                got.append(await asyncio.wait_for(anext(blocks), 10))
    assert inbox.lag_bytes() == sum(len(block.data) for block in got) > taken
    inbox.committed(Portion(got).positions())
    assert inbox.lag_bytes() == 0
    assert front.has_room(64 << 20), "nothing of it is counted any more"


async def test_a_pipeline_that_ends_while_large_messages_are_parsed_loses_none() -> None:
    inbox = inbox_of(Front(), "s")
    assert inbox.put(Records([*map(large, range(30)), b"<1" + b"x" * LARGE_BYTES]))
    async with contextlib.aclosing(inbox.blocks({}, 1 << 20)) as blocks:
        pull = asyncio.ensure_future(anext(blocks))
        await asyncio.sleep(0)
        pull.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await pull
    *got, last = inbox.rest(1 << 20)
    assert ids([*got, Block(last.data.partition(b"<1")[0], 0)]) == list(range(30))
    assert last.data.endswith(b"<1" + b"x" * LARGE_BYTES + b"\n"), "it is no message"


async def test_after_a_refusal_nothing_need_be_parsed_until_something_is_let_go_of() -> None:
    inbox = Inbox(Front(max_bytes=1 << 20), max_bytes=2 * len(large(0)))
    assert inbox.put(Records([large(0)]))
    assert inbox.has_room(1)
    assert not inbox.put(Records([large(1)]))
    assert not inbox.has_room(1)
    inbox.committed(Portion(list(inbox.rest(1 << 20))).positions())
    assert inbox.has_room(1)
    assert not inbox.has_room(1 << 21), "that is more than all streams together may hold"
