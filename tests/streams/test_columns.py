"""Aligned columns: texts on the left, numbers on the right, no trailing spaces."""

from __future__ import annotations

from streams.columns import aligned, harmless, show_bytes, show_seconds


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


def test_what_a_terminal_would_obey_is_spelled_out_and_the_rest_stays() -> None:
    assert harmless("\x1b[2J\rspiffe://a/\u00e9") == "\\x1b[2J\\rspiffe://a/\u00e9"
    assert harmless("http – 5 %") == "http – 5 %"


def test_cells_are_spelled_out_before_they_are_aligned() -> None:
    assert list(aligned([("a\x1b[2J", "1"), ("b", "22")], numbers_from=1)) == ["a\\x1b[2J   1", "b         22"]


def test_what_is_to_stay_stays_and_names_that_are_no_text_can_be_printed() -> None:
    assert harmless("one\ntwo\x9b", keep="\n") == "one\ntwo\\x9b"
    assert harmless("a\udcffb\u202e").encode() == b"a\\udcffb\\u202e"


def test_sizes_and_ages_read_well() -> None:
    assert [show_bytes(count) for count in (0, 999, 1000, 2_500_000, 3e12)] == [
        "0 B",
        "999 B",
        "1.00 kB",
        "2.50 MB",
        "3.00 TB",
    ]
    ages = (0.04, 9.94, 61, 121, 7201, 200_000)
    assert [show_seconds(seconds) for seconds in ages] == ["0.0 s", "9.9 s", "61 s", "2 min", "2 h", "2 d"]
