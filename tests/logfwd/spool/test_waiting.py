"""Waiting batches are added up alike by few aggregates and by many, whatever a damaged file holds."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import Any
from unittest.mock import patch

from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import astuple

from logfwd.spool import waiting
from logfwd.spool.rows import ROW_ID_STEP
from logfwd.spool.schema import SCHEMA_VERSION, create, insert
from logfwd.spool.waiting import read_waiting
from streams.errors import SpoolCorrupt

Batches = list[tuple[Any, ...]]
WRONG = st.sampled_from([None, 0, -1, 1.5, "text", b"\0", 7])


def spooled(batches: Batches) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(create(SCHEMA_VERSION, "batches") + f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.executemany(insert("batches"), batches)
    return connection


def found_in(connection: sqlite3.Connection) -> Any:
    """All that `read_waiting` found, or that it found damage."""
    try:
        found = read_waiting(connection)
    except SpoolCorrupt:
        return SpoolCorrupt
    return {stream: ([*map(astuple, each.rows)], [*map(astuple, each.beyond)]) for stream, each in found.items()}


@st.composite
def spools(draw: st.DrawFn) -> Batches:
    """Runs of batches that follow each other, of one stream or two, some of them stamped, some changed at random."""
    batches: Batches = []
    blob = 0
    for number in range(draw(st.integers(0, 40))):
        blob += draw(st.sampled_from([1, 1, 1, 1, 1, 1, 1, 2]))
        run = 1 + number // draw(st.sampled_from([5, 100]))
        for offset, stream in enumerate(draw(st.sampled_from([["original"], ["original", "twin"]]))):
            stamp = draw(st.sampled_from([None, None, None, None, number]))
            batches.append(((2 * number + offset + 1) * ROW_ID_STEP, stream, run, blob, 1 + number % 3, 100, stamp))
    for _ in range(draw(st.sampled_from([0, 0, 1, 2])) if batches else 0):
        index, column = draw(st.integers(0, len(batches) - 1)), draw(st.integers(1, 6))
        row = list(batches[index])
        row[column] = draw(WRONG)
        batches[index] = tuple(row)
    return batches


@settings(max_examples=200, deadline=None)
@given(spools())
@example([(ROW_ID_STEP, None, 1, 1, 1, 100, None)])
def test_few_aggregates_find_what_many_find(batches: Batches) -> None:
    with (
        contextlib.closing(spooled(batches)) as connection,
        patch.object(waiting, "BUCKET_IDS", 8 * ROW_ID_STEP),
        patch.object(waiting, "WINDOW_ROWS", 2),
    ):
        found = found_in(connection)
        with patch.object(waiting, "_plain_sums", lambda *_: None):
            assert found == found_in(connection)


def test_what_nearly_all_spools_hold_takes_few_aggregates() -> None:
    batches: Batches = [
        ((2 * number + offset) * ROW_ID_STEP, stream, 1, number, 1, 100, None)
        for number in range(1, 5000)
        for offset, stream in enumerate(("original", "twin"))
    ]
    statements: list[str] = []
    with contextlib.closing(spooled(batches)) as connection:
        connection.set_trace_callback(statements.append)
        read_waiting(connection)
    assert not [statement for statement in statements if "typeof" in statement]


def test_an_order_that_is_damaged_in_one_direction_is_no_surprise() -> None:
    batches: Batches = [((n + 1) * ROW_ID_STEP, "original", 1, n + 1, 1, 100, None) for n in range(3)]
    with patch.object(waiting, "_LAST", waiting._LAST.replace("ORDER BY", "AND 0 ORDER BY")):
        found = found_in(spooled(batches))
    assert found == found_in(spooled(batches))
