"""Aligned columns: texts on the left, numbers on the right, no trailing spaces."""

from __future__ import annotations

from streams.columns import aligned


def test_texts_are_aligned_on_the_left_and_numbers_on_the_right() -> None:
    rows = [("STREAM", "BATCHES", "OLDEST"), ("http", "12", "-"), ("pq-stream", "3", "today")]
    assert list(aligned(rows, numbers_from=1)) == [
        "STREAM     BATCHES  OLDEST",
        "http            12       -",
        "pq-stream        3   today",
    ]
    assert list(aligned(rows, numbers_from=3))[1] == "http       12       -"


def test_no_rows_are_no_lines() -> None:
    assert list(aligned([], numbers_from=0)) == []
