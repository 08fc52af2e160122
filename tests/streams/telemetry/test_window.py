"""Percentiles of the last values are those of a plain sort, however rarely or often somebody asks."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from streams.telemetry import window
from streams.telemetry.window import Window

SMALL = 50


@given(st.lists(st.lists(st.integers(0, 20).map(float), max_size=2 * SMALL), max_size=12))
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
