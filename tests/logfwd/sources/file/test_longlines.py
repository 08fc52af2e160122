"""Lines that are longer than a block, and than a record: one line each, in parts 1 to n of n, wherever it is killed."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from logfwd.intake.shape import PLAIN, split
from logfwd.sources.file.plain import plain_pieces
from tests.logfwd.sources.file.follow_harness import Reader, append

BLOCK_BYTES, RECORD_BYTES, MIB = 64, 300, 1024 * 1024
LINE = '{"a":"' + "é\\n€ \U0001f600" * 40 + '"'  # no object: its brace is missing
WITH_NEWLINES_INSIDE = "\u0a0a\u010a" * 300  # in UTF-16, each has the byte of a newline


def records(reader: Reader) -> list[dict[str, Any]]:
    """What is sealed of everything that was committed."""
    values = [
        value
        for block in reader.blocks
        for value in split(PLAIN, block, invalid="wrap", max_record_bytes=RECORD_BYTES).values
    ]
    assert max(map(len, values), default=0) <= RECORD_BYTES
    return [json.loads(bytes(value)) for value in values]


def lines_of(found: list[dict[str, Any]]) -> list[str]:
    """The lines that these records are, after a look at the numbers of the parts."""
    made: list[str] = []
    while found:
        count = found[0].get("parts", 1)
        parts, found = found[:count], found[count:]
        if count > 1:
            assert [(each["part"], each["parts"]) for each in parts] == [(n, count) for n in range(1, count + 1)]
            assert len({each["line_id"] for each in parts}) == 1
        made.append("".join(each["message"] for each in parts))
    return made


CASES = [
    ("json", "utf-8", [LINE, "short", LINE, "end"]),
    ("text", "utf-8", [LINE, "short", LINE, "end"]),
    ("text", "utf-16-be", [WITH_NEWLINES_INSIDE, "short", "end"]),
]


@pytest.mark.parametrize(("format_", "encoding", "lines"), CASES)
def test_every_prefix_of_a_file_with_long_lines_is_a_crash_point(
    tmp_path: Path, format_: str, encoding: str, lines: list[str]
) -> None:
    data = "".join(line + "\n" for line in lines).encode(encoding)
    for length in range(0, len(data) + 1, 2 if encoding == "utf-8" else 3):
        path = tmp_path / f"{length}.log"
        path.write_bytes(data[:length])
        reader = Reader(path, format=format_, encoding=encoding, block_bytes=BLOCK_BYTES, max_record_bytes=RECORD_BYTES)
        reader.turn()
        reader.scan()
        reader.read(1 + length % 3)
        reader.restart()
        append(path, data[length:])
        reader.turn()
        reader.follower.close()
        assert lines_of(records(reader)) == lines
        path.unlink()


def test_a_long_line_in_another_encoding_is_in_parts_of_base64_throughout(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b"x" * 900 + b"\xff" + b"\n")
    reader = Reader(path, block_bytes=BLOCK_BYTES, max_record_bytes=RECORD_BYTES)
    reader.turn()
    found = records(reader)
    assert {frozenset(each) for each in found} == {frozenset(("message_base64", "invalid", "part", "parts", "line_id"))}
    assert {each["parts"] for each in found} == {len(found)}


def test_half_a_long_line_waits_for_its_end_and_counts_as_lag(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b"one\n" + b"x" * 1000)
    reader = Reader(path, block_bytes=BLOCK_BYTES)
    reader.turn()
    assert reader.lines == [b"one"]
    assert reader.follower.lag_bytes() == 1000
    append(path, b"y\ntwo\n")
    reader.turn()
    assert reader.lines == [b"one", b"x" * 1000 + b"y", b"two"]
    assert reader.follower.lag_bytes() == 0


def test_a_stream_that_starts_at_the_end_begins_with_the_whole_of_a_long_line(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b"old\n" + b"x" * MIB)
    reader = Reader(path, start_at="end")
    reader.turn()
    append(path, b"y\n")
    reader.turn()
    assert reader.lines == [b"x" * MIB + b"y"]


def test_a_stream_that_starts_at_the_end_of_what_may_be_no_line_begins_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logfwd.sources.file.identity.MAX_LINE_BYTES", 100_000)
    path = tmp_path / "a.log"
    path.write_bytes(b"old\n" + b"x" * MIB)
    reader = Reader(path, start_at="end")
    reader.turn()
    append(path, b"y\nnew\n")
    reader.turn()
    assert reader.lines == [b"y", b"new"]


def test_half_a_long_line_is_a_record_once_its_file_was_rotated(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b"x" * 1000)
    reader = Reader(path, block_bytes=BLOCK_BYTES)
    reader.turn()
    path.rename(tmp_path / "a.log.1")
    path.write_bytes(b"next\n")
    for _ in range(4):
        reader.turn(10.0)
    assert reader.lines == [b"next", b"x" * 1000], "only the half line waits"
    assert reader.open_files == 1


def test_a_line_without_end_is_cut_at_whole_characters_and_that_is_counted_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logfwd.sources.file.tail.MAX_LINE_BYTES", 4000)
    path = tmp_path / "a.log"
    line = "x" + "é" * 10_000
    path.write_text(line, encoding="utf-8")
    reader = Reader(path, block_bytes=BLOCK_BYTES)
    with capture_logs() as logs:
        reader.turn()
    assert [len(each) for each in reader.lines] == [3999, 4000, 4000, 4000, 4000]
    assert reader.counted == {"too_long": 5}
    assert [(each["event"], each["cuts"]) for each in logs if each["event"] == "line cut"] == [
        ("line cut", 1),
        ("line cut", 2),
        ("line cut", 4),
    ]
    append(path, b"\nend\n")
    reader.turn()
    *pieces, last = reader.lines
    assert (b"".join(pieces).decode(), last) == (line, b"end")


@pytest.fixture
def read_bytes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of all reads, as they come."""
    sizes, pread = list[int](), os.pread

    def counted(fd: int, size: int, offset: int) -> bytes:
        data = pread(fd, size, offset)
        sizes.append(len(data))
        return data

    monkeypatch.setattr(os, "pread", counted)
    return sizes


def test_a_line_that_grows_slowly_is_not_searched_from_its_start_each_time(
    tmp_path: Path, read_bytes: list[int]
) -> None:
    path = tmp_path / "a.log"
    path.touch()
    reader = Reader(path, block_bytes=4096)
    for _ in range(100):
        append(path, b"x" * 20_000)
        reader.turn()
    append(path, b"\n")
    reader.turn()
    assert [len(line) for line in reader.lines] == [2_000_000]
    assert sum(read_bytes) < 10_000_000, "the line, once to find its end and once to read it, and a block at each look"


def test_the_end_of_a_line_is_not_looked_for_in_reserved_room(tmp_path: Path, read_bytes: list[int]) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b"half")
    os.truncate(path, 64 * MIB)
    reader = Reader(path)
    reader.turn()
    assert reader.lines == []
    assert sum(read_bytes) < 12 * MIB


@pytest.mark.parametrize("block_bytes", [BLOCK_BYTES, MIB])
def test_half_a_line_before_reserved_room_ends_where_it_is_written_on(tmp_path: Path, block_bytes: int) -> None:
    path, half = tmp_path / "a.log", b"half" * 100
    path.write_bytes(b"one\n" + half + bytes(8 * MIB))
    reader = Reader(path, block_bytes=block_bytes)
    reader.turn()
    assert reader.lines == [b"one"]
    with path.open("r+b") as file:
        file.seek(4 + len(half))
        file.write(b" a line" * 100_000 + b"\n")
    reader.turn()
    assert reader.lines == [b"one", half + b" a line" * 100_000]
    assert reader.follower.lag_bytes() == 0
    assert not reader.counted


def test_a_long_line_with_zeros_inside_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b"a" + bytes(500) + b"b\nend\n")
    reader = Reader(path, block_bytes=BLOCK_BYTES)
    reader.turn()
    assert reader.lines == [b"a" + bytes(500) + b"b", b"end"]


def test_long_lines_of_a_compressed_file_are_read_without_beginning_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = list[int]()

    def counted(fd: int) -> Iterator[bytes]:
        begun.append(fd)
        return plain_pieces(fd)

    lines = [b"x" * (MIB + number) for number in range(12)]
    path = tmp_path / "a.log.gz"
    path.write_bytes(gzip.compress(b"\n".join([*lines, b""])))
    reader = Reader(path, compressed="read", block_bytes=4096)
    monkeypatch.setattr("logfwd.sources.file.plain.plain_pieces", counted)
    for _ in range(5):
        reader.turn()
    assert reader.lines == lines
    assert len(begun) <= 3
