"""What one tap takes of what passes, and what it leaves out: batches offered by hand, a clock that jumps."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from structlog.testing import capture_logs

from logfwd import tap
from logfwd.spool.rows import Row
from logfwd.tap import MOST_TAPS, Tap, Taps
from streams.records.batch import Codec, build, pack
from streams.records.body import Extras, frame, header_fields, key_field
from tests.support.installation import found


def batch(count: int, first: int = 0) -> bytes:
    values = [b'{"n":%d}' % number for number in range(first, first + count)]
    return build(values, timestamp_ms=1_000, codec=Codec.ZSTD)


def row(payload: bytes | None, count: int) -> Row:
    return Row(1, 1, 1, count, 0, payload=payload)


async def looked(at: Tap) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (await at.next()).splitlines()]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_records_within_the_rate_are_all_shown_in_order() -> None:
    clock = Clock()
    view = Tap("http", 100, clock)
    numbers = []
    for turn in range(20):
        view.offer(batch(10, turn * 10), 10)
        numbers += [line["record"]["n"] for line in await looked(view)]
        clock.now += 0.1
    assert numbers == list(range(200))
    assert (view.shown, view.unseen) == (200, 0)


async def test_of_a_busy_stream_a_few_batches_are_looked_at_and_the_rest_is_counted() -> None:
    clock, shown, looks = Clock(), 0, 0
    view = Tap("http", 100, clock)
    for _ in range(1000):  # 10 000 records a second for 10 seconds
        view.offer(batch(100), 100)
        if view._waiting:
            shown, looks = shown + len(await looked(view)), looks + 1
        clock.now += 0.01
    assert 1000 <= shown <= 1100
    assert looks <= 101
    view.offer(batch(100), 100)
    clock.now += 1
    view.offer(batch(1), 1)
    while view._waiting:
        lines = await looked(view)
    assert view.shown + view.unseen == 100_101
    assert "unseen" in lines[0]


async def test_a_client_that_is_stopped_costs_a_bounded_amount_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tap, "MOST_WAITING_BYTES", 1000)
    clock = Clock()
    view = Tap("http", 1000, clock)
    payload = batch(10)
    for _ in range(10_000):
        view.offer(payload, 10)
        clock.now += 1
    assert sum(len(each) for each, _, _ in view._waiting) <= 1000 + len(payload)
    monkeypatch.setattr(tap, "MOST_WAITING_BYTES", 1_000_000_000)
    for _ in range(10_000):
        view.offer(payload, 10)
        clock.now += 1
    assert len(view._waiting) <= tap.MOST_WAITING_BATCHES


async def test_of_large_records_only_some_are_shown() -> None:
    view = Tap("http", 100)
    values = [b'{"m":"%s"}' % (b"x" * 100_000) for _ in range(20)]
    view.offer(build(values, timestamp_ms=0, codec=Codec.ZSTD), 20)
    assert len(await looked(view)) == 2
    assert view.unseen == 18


async def test_a_line_has_all_that_a_record_has() -> None:
    view = Tap("http", 100)
    extras = Extras(b"", None, [key_field(b"k\xff")], header_fields([(b"host", b"a"), (b"none", None)]))
    records, count = frame([b"no json \x1b[2J"], 10_000, extras)
    view.offer(pack(records, count, timestamp_ms=1_500, codec=Codec.NONE).payload, 1)
    view.offer(batch(1), 1)
    assert await looked(view) == [
        {
            "stream": "http",
            "time": "1970-01-01T00:00:01.500+00:00",
            "key": "k\\xff",
            "headers": {"host": "a", "none": None},
            "record": {"record_base64": "bm8ganNvbiAbWzJK"},
        }
    ]
    assert (await looked(view))[0]["record"] == {"n": 0}


async def test_what_is_not_in_memory_or_is_damaged_is_counted() -> None:
    view = Tap("http", 100)
    view.offer(None, 7)
    view.offer(batch(3)[:-1], 3)
    view.offer(batch(1), 1)
    assert (await looked(view))[0]["unseen"] == 10


async def test_taps_see_their_stream_alone_and_end_with_it() -> None:
    taps = Taps()
    with capture_logs() as events:
        lines = taps.lines(["http", "app"], "http", 100)
        assert json.loads(await anext(lines)) == {"stream": "http"}
        taps.offer("app", [row(batch(1), 1)])
        taps.offer("http", [row(batch(2, 5), 2)])
        assert [json.loads(line)["record"]["n"] for line in (await anext(lines)).splitlines()] == [5, 6]
        waits = asyncio.ensure_future(anext(lines))
        await asyncio.sleep(0)
        taps.keep(["http"])
        await asyncio.sleep(0)
        assert not waits.done()
        taps.keep(["app"])
        assert json.loads(await waits)["error"] == "the stream was removed"
    (ended,) = found(events, "tap ended")
    assert (ended["stream"], ended["shown"], ended["unseen"]) == ("http", 2, 0)


async def test_unknown_streams_and_too_many_taps_are_refused() -> None:
    taps = Taps()
    unknown = json.loads(await anext(taps.lines(["b", "a"], "http", 100)))
    assert unknown["error"] == "there is no stream 'http'; existing streams: a, b"
    opened = [taps.lines(["a"], "a", 100) for _ in range(MOST_TAPS)]
    for lines in opened:
        await anext(lines)
    assert "8 taps are open" in json.loads(await anext(taps.lines(["a"], "a", 100)))["error"]
    await opened[0].aclose()
    assert "error" not in json.loads(await anext(taps.lines(["a"], "a", 100)))


@pytest.mark.parametrize("rate", [0, 1001, float("nan"), None, "1"])
async def test_a_rate_beyond_the_limits_is_no_question(rate: object) -> None:
    with pytest.raises(ValueError, match="rate is from 1 to 1000"):
        await anext(Taps().lines(["a"], "a", rate))
