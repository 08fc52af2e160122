"""Percentiles of the last values are those of a plain sort, however rarely or often they are computed."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from streams.telemetry import window
from streams.telemetry.window import WINDOW, Window

SMALL = 50
BURST = st.lists(st.integers(0, 20).map(float), max_size=2 * SMALL)


@given(st.lists(BURST, max_size=12))
def test_a_summary_is_that_of_a_plain_sort_of_the_last_values(bursts: list[list[float]]) -> None:
    before = window.WINDOW, window.MANY_NEW
    window.WINDOW, window.MANY_NEW = SMALL, SMALL // 5
    try:
        values, kept = [], Window()
        for burst in bursts:
            for value in burst:
                kept.add(value)
            values += burst
            last = sorted(values[-SMALL:])
            expected = [last[math.ceil(share * len(last)) - 1] if last else None for share in (0.5, 0.95, 0.99)]
            found = kept.summary()
            assert [found["median"], found["p95"], found["p99"]] == expected
            assert found["count"] == len(values)
    finally:
        window.WINDOW, window.MANY_NEW = before


def test_a_window_keeps_the_last_values_and_no_more() -> None:
    kept = Window()
    for value in range(WINDOW + 500):
        kept.add(float(value))
    assert sorted(kept.since(0)) == [float(value) for value in range(500, WINDOW + 500)]
    assert kept.summary()["count"] == WINDOW + 500
    assert kept.since(WINDOW + 497) == [WINDOW + 497.0, WINDOW + 498.0, WINDOW + 499.0]
    assert kept.since(0) == [float(value) for value in range(500, WINDOW + 500)]


def test_one_value_is_every_percentile() -> None:
    kept = Window()
    kept.add(2.0)
    percentiles = {"median": 2.0, "p95": 2.0, "p99": 2.0}
    assert kept.summary() == {"count": 1, **percentiles, "recent": {"seconds": 300, "count": 1, **percentiles}}


@given(st.lists(st.tuples(st.integers(0, 150), BURST), max_size=12))
def test_recent_percentiles_are_those_of_the_last_five_minutes(bursts: list[tuple[int, list[float]]]) -> None:
    before = window.WINDOW, window.MANY_NEW
    window.WINDOW, window.MANY_NEW = SMALL, SMALL // 5
    try:
        now, values = 0, list[tuple[int, float]]()
        kept = Window(clock=lambda: now)
        for pause, burst in bursts:
            now += pause + window.MARK_SECONDS
            for value in burst:
                kept.add(value)
            values += [(now, value) for value in burst]
            last = sorted(value for at, value in values[-SMALL:] if at >= now - window.RECENT_SECONDS)
            expected = [last[math.ceil(share * len(last)) - 1] if last else None for share in (0.5, 0.95, 0.99)]
            found = kept.summary()["recent"]
            assert [found["median"], found["p95"], found["p99"]] == expected
            assert found["count"] == len(last)
    finally:
        window.WINDOW, window.MANY_NEW = before


def test_values_of_a_steady_stream_leave_the_last_five_minutes_one_after_the_other() -> None:
    now = 0.0
    kept = Window(clock=lambda: now)
    for second in range(2000):
        now = float(second)
        kept.add(now)
        if second % 10 == 0 and second > 400:
            recent = kept.summary()["recent"]
            assert abs(recent["count"] - window.RECENT_SECONDS) <= window.MARK_SECONDS
            assert recent["median"] is not None
            assert abs(recent["median"] - (second - 150)) <= window.MARK_SECONDS
    now += 301
    assert kept.summary()["recent"]["count"] == 0
    assert kept.summary()["median"] == 999.0
