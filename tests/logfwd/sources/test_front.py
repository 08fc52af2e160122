"""The front: room is reserved before anything is taken, and every request hears exactly one outcome."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs

from logfwd.sources.front import Front, Handle, Outcome
from logfwd.sources.keys import key_hash
from logfwd.sources.position import Block
from logfwd.spool.store import Spool
from streams.errors import NoRoom, NotServed, SpoolFull
from tests.support.installation import eventually
from tests.support.patience import PATIENCE_SECONDS
from tests.support.pipelines import DROPPING, STREAM, pipeline_on, records_in, running, stamped
from tests.support.push_source import BadRequest, Push


def block(text: bytes = b"{}\n") -> Block:
    return Block(text, 1)


async def no_key(_: bytes) -> None:
    return None


def start(handle: Handle, room: int = 100) -> None:
    handle.start(lambda: room, no_key)


@pytest.fixture
async def handle() -> Iterator[Handle]:  # type: ignore[misc]
    """Of a pipeline that has started, with room for 100 bytes in the spool and 150 in memory."""
    with Front(max_bytes=150).open("s") as handle:
        start(handle)
        yield handle


async def test_a_stream_is_served_while_its_pipeline_runs() -> None:
    front = Front()
    with pytest.raises(NotServed, match="'s' is not served"):
        front.admit("s", 1)
    with front.open("s") as handle:
        with pytest.raises(NotServed, match="starting or stopping"):
            front.admit("s", 1)
        start(handle)
        admission = front.admit("s", 1)
        assert handle.stop() == []
        with pytest.raises(NotServed), admission:
            admission.hand_over([block()])
        with pytest.raises(NotServed):
            front.admit("s", 1)
    with pytest.raises(NotServed, match="'s' is not served"):
        front.admit("s", 1)


async def test_room_in_the_spool_is_reserved_at_admission_and_as_the_body_grows(handle: Handle) -> None:
    with handle.admit(60) as first:
        with pytest.raises(NoRoom, match="spool of stream 's' is full"):
            handle.admit(41)
        with handle.admit(30) as second:
            second.grow(10)
            with pytest.raises(NoRoom):
                first.grow(1)
            assert first.size == 60
        first.grow(40)
    with handle.admit(100):
        pass


async def test_room_in_memory_is_for_all_streams_together(handle: Handle) -> None:
    with handle.front.open("t") as other:
        start(other, 1000)
        with handle.admit(90), pytest.raises(NoRoom, match="memory"):
            other.admit(61)
        with other.admit(150):
            pass


async def test_a_request_keeps_its_room_until_it_is_answered(handle: Handle) -> None:
    with handle.admit(0) as admission:
        request = admission.hand_over([block(b"x" * 40), block(b"y" * 40)])
    assert handle.lag_bytes == 80
    with pytest.raises(NoRoom):
        handle.admit(21)
    request.done()
    with pytest.raises(NoRoom):
        handle.admit(21)
    request.done()
    assert await request.outcome() is Outcome.DONE
    assert handle.lag_bytes == 0
    with handle.admit(100):
        pass


async def test_more_than_was_reserved_is_reserved_at_the_hand_over_or_none_of_it_is_taken(handle: Handle) -> None:
    with handle.admit(10) as admission, pytest.raises(NoRoom):
        admission.hand_over([block(b"x" * 101)])
    assert handle.stop() == []
    start(handle)
    with handle.admit(100):
        pass


async def test_a_request_of_nothing_is_done(handle: Handle) -> None:
    with handle.admit(10) as admission:
        assert await admission.hand_over([]).outcome() is Outcome.DONE
    with handle.admit(100):
        pass


ERROR = SpoolFull("full")


@pytest.mark.parametrize(
    ("words", "outcome"),
    [
        (["done", "done"], Outcome.DONE),
        (["failed", "failed"], Outcome.FAILED),
        (["unknown", "unknown"], Outcome.UNKNOWN),
        (["done", "failed"], Outcome.UNKNOWN),
        (["done", "unknown"], Outcome.UNKNOWN),
        (["failed", "unknown"], Outcome.UNKNOWN),
    ],
)
async def test_the_outcome_of_a_request_is_that_of_all_its_blocks(
    handle: Handle, words: list[str], outcome: Outcome
) -> None:
    with handle.admit(0) as admission:
        request = admission.hand_over([block(), block()])
    waiting = asyncio.ensure_future(request.outcome())
    for word in words:
        await asyncio.sleep(0)
        assert not waiting.done()
        {"done": request.done, "failed": lambda: request.failed(ERROR), "unknown": request.unknown}[word]()
    assert await waiting is outcome


async def test_blocks_come_in_order_and_waiting_for_them_loses_none(handle: Handle) -> None:
    blocks = handle.blocks()
    pull = asyncio.ensure_future(anext(blocks))
    await asyncio.sleep(0)
    pull.cancel()
    with handle.admit(0) as admission:
        admission.hand_over([block(b"1\n"), block(b"2\n")])
    with handle.admit(0) as admission:
        admission.hand_over([block(b"3\n")])
    again = handle.blocks()
    assert [(await anext(again)).data for _ in range(2)] == [b"1\n", b"2\n"]
    assert [each.data for each in handle.stop()] == [b"3\n"]


async def test_at_the_end_what_was_not_begun_failed_and_everything_else_is_unknown() -> None:
    with Front().open("s") as handle:
        start(handle)
        requests = []
        for count in (1, 2, 1):
            with handle.admit(0) as admission:
                requests.append(admission.hand_over([block()] * count))
        blocks = handle.blocks()
        await anext(blocks)
        await anext(blocks)
    assert [await request.outcome() for request in requests] == [Outcome.UNKNOWN, Outcome.UNKNOWN, Outcome.FAILED]


async def test_a_client_that_leaves_changes_nothing(handle: Handle) -> None:
    with handle.admit(0) as admission:
        request = admission.hand_over([block()])
    client = asyncio.ensure_future(request.outcome())
    await asyncio.sleep(0)
    client.cancel()
    await asyncio.sleep(0)
    request.done()
    assert await request.outcome() is Outcome.DONE


async def test_what_is_kept_outlives_handles() -> None:
    front, made = Front(), list[int]()

    def make() -> list[int]:
        made.append(1)
        return []

    first, second = (front.keep("reader", make) for _ in range(2))
    assert first is second
    assert made == [1]


# -- with a pipeline -----------------------------------------------------------------------------------------------


async def test_requests_are_stored_and_answered_and_those_of_a_stopped_stream_are_refused(tmp_path: Path) -> None:
    path, front = tmp_path / "s.spool", Front()
    async with Spool(path) as spool:
        with front.open("s") as handle:
            source = Push(handle, block_bytes=20)
            async with pipeline_on(spool, source) as pipeline, running(pipeline):
                handle.start(pipeline.room_bytes, spool.key)
                body = b"".join(b'{"n":%d}\n' % number for number in range(10))
                assert await source.send(body) is Outcome.DONE
                pipeline.stop_reading()
                await eventually(lambda: handle._room is None)
                with pytest.raises(NotServed):
                    await source.send(body)
    assert b"".join(record + b"\n" for record in await records_in(path)) == body


async def test_a_full_spool_reaches_the_client_before_anything_is_taken(tmp_path: Path) -> None:
    path, front = tmp_path / "s.spool", Front()
    async with Spool(path) as spool:
        with front.open("s") as handle:
            source = Push(handle)
            async with pipeline_on(spool, source) as pipeline, running(pipeline):
                backlog = pipeline.senders[0].backlog
                handle.start(pipeline.room_bytes, spool.key)
                assert await source.send(b"{}\n") is Outcome.DONE
                room = backlog.room_bytes
                backlog.max_bytes -= room - 10
                assert pipeline.room_bytes() == 0
                with pytest.raises(NoRoom):
                    await source.send(b'{"n":12345}\n')
                assert (len(backlog.rows), handle.lag_bytes) == (1, 0)
                backlog.max_bytes += room
                assert await source.send(b'{"n":12345}\n') is Outcome.DONE


@pytest.mark.parametrize("records", [1, 7, 300])
async def test_what_is_admitted_to_a_spool_that_is_nearly_full_is_stored_without_waiting_for_room(
    tmp_path: Path, records: int
) -> None:
    """Batches take more room than the requests that they were; a client that was let in would wait for Kafka."""
    front, body = Front(), b'{"n":1,"text":"short"}\n' * records
    async with Spool(tmp_path / "s.spool") as spool:
        with front.open("s") as handle:
            source = Push(handle)
            stream = structs.replace(STREAM, codec="none")
            async with pipeline_on(spool, source, stream) as pipeline, running(pipeline):
                handle.start(pipeline.room_bytes, spool.key)
                assert await source.send(body) is Outcome.DONE
                backlog = pipeline.senders[0].backlog
                backlog.max_bytes -= backlog.room_bytes - 100_000

                async def client(number: int) -> int:
                    with contextlib.suppress(NoRoom):
                        for sent in range(10_000):
                            assert await source.send(body, b"%d %d" % (number, sent)) is Outcome.DONE
                    return sent

                async with asyncio.timeout(PATIENCE_SECONDS):
                    sent = await asyncio.gather(*map(client, range(8)))
                assert sum(sent) > 0
                assert 0 <= backlog.room_bytes < 100_000


# -- idempotency keys ----------------------------------------------------------------------------------------------


async def test_a_repeat_waits_for_the_first_and_is_then_known(tmp_path: Path) -> None:
    path, front, body = tmp_path / "s.spool", Front(), b'{"n":1}\n{"n":2}\nnonsense\n'
    async with Spool(path) as spool:
        with front.open("s") as handle:
            source = Push(handle, block_bytes=10)
            async with pipeline_on(spool, source) as pipeline, running(pipeline):
                handle.start(pipeline.room_bytes, spool.key)
                outcomes = await asyncio.gather(*(source.send(body, b"key") for _ in range(5)))
                assert set(outcomes) == {Outcome.DONE}
                with pytest.raises(BadRequest, match="another body"):
                    await source.send(b'{"n":3}\n', b"key")
                assert await source.send(body, b"another key") is Outcome.DONE
                known = await spool.key(key_hash("s", "client", b"key"))
                assert known is not None
                assert (known.progress, known.total, known.accepted, known.invalid) == (len(body), len(body), 3, 1)
                assert handle._keyed == {}
    assert len(await records_in(path)) == 6


async def test_a_client_that_leaves_still_keeps_its_key_until_its_request_is_answered(handle: Handle) -> None:
    async def first() -> None:
        async with handle.keyed(b"key"):
            with handle.admit(0) as admission:
                request = admission.hand_over([block()], b"key")
            await request.outcome()

    async def second() -> None:
        async with handle.keyed(b"key"):
            pass

    leaving = asyncio.ensure_future(first())
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    repeat = asyncio.ensure_future(second())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not repeat.done()
    (waiting,) = handle.stop()
    assert waiting.receipt is not None
    waiting.receipt.done()
    await repeat
    assert handle._keyed == {}


async def test_a_request_that_is_refused_leaves_no_key(tmp_path: Path) -> None:
    path, front = tmp_path / "s.spool", Front()
    async with Spool(path) as spool:
        with front.open("s") as handle:
            source = Push(handle)
            async with pipeline_on(spool, source, DROPPING) as pipeline, running(pipeline):
                handle.start(pipeline.room_bytes, spool.key)
                await stamped(spool, pipeline.senders[0].backlog, 3)
                assert await source.send(b"{}\n", b"key") is Outcome.FAILED
                assert await spool.key(key_hash("s", "client", b"key")) is None
