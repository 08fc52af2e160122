"""Positions as the spool stores them: what a source encoded it reads back, and never takes other bytes for its own."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from logfwd.sources.file.source import marks
from logfwd.sources.position import FILE, Mark, Position

COUNTS = st.integers(0, 2**63 - 1)


@given(COUNTS, COUNTS, st.binary(max_size=20), st.binary(max_size=20))
def test_a_mark_is_read_back_as_it_was_written(offset: int, tail_bytes: int, tail_hash: bytes, detail: bytes) -> None:
    mark = Mark(offset, tail_bytes, tail_hash, detail)
    assert Mark.decode(mark.encode()) == mark


@given(st.binary(max_size=40))
def test_any_bytes_are_a_mark_or_are_refused(value: bytes) -> None:
    mark = Mark.decode(value)
    assert mark is None or (mark.offset >= 0 and mark.tail_bytes >= 0)


@pytest.mark.parametrize(
    "fields",
    [[], [-1], ["1"], [1, -1], [1, 1, "text"], {"offset": 1}, None],
    ids=["none", "negative", "text", "negative tail", "hash of the wrong type", "map", "null"],
)
def test_what_is_not_a_mark_is_refused(fields: object) -> None:
    assert Mark.decode(msgspec.msgpack.encode(fields)) is None


def test_the_file_source_reads_its_own_positions_alone() -> None:
    good, bad = Mark(5, 3, b"hash", b"detail"), b"\xc1"
    found = marks(
        {
            "good": Position(FILE, good.encode()),
            "bad": Position(FILE, bad),
            "another": Position("journald", good.encode()),
        }
    )
    assert found == {"good": good, "bad": Mark(0)}, "a value that is not a mark becomes one that names no file"
