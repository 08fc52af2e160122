"""Files whose lines are text, in any encoding, or whatever they are."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logfwd.intake import jsonlines, rawlines
from logfwd.sources.file.source import FileTail
from logfwd.sources.settings import FileSource
from logfwd.spool.store import Spool
from streams.records.printed import printed
from tests.logfwd.sources.file.follow_harness import Reader, append
from tests.support.installation import eventually
from tests.support.pipelines import STREAM, pipeline_on, records_in, running

ENCODINGS = ["utf-8", "latin-1", "cp1252", "shift_jis", "gb18030", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]


def messages(reader: Reader) -> list[str]:
    return [json.loads(line)["message"] for line in reader.lines]


def test_each_line_of_text_is_a_record_and_blank_lines_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_bytes(b'plain\r\n\n \t\n{"a":1}\nunfinished')
    reader = Reader(path, format="text")
    reader.turn()
    assert reader.lines == [b'{"message":"plain"}', b'{"message":"{\\"a\\":1}"}']
    append(path, b" no more\n")
    reader.turn()
    assert messages(reader)[2:] == ["unfinished no more"]


def test_what_is_not_of_the_encoding_is_replaced_and_its_records_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_bytes(b"good \xc3\xa9\nbad \xff\nbad \xc3\n")
    reader = Reader(path, format="text")
    reader.turn()
    assert messages(reader) == ["good é", "bad \ufffd", "bad \ufffd"]
    assert reader.counted == {"undecodable": 2}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("block_bytes", [8, 64 * 1024])
def test_every_encoding_is_cut_at_its_newlines_at_whatever_point_it_stops(
    tmp_path: Path, encoding: str, block_bytes: int
) -> None:
    """U+0A0A and U+010A hold the byte of a newline in UTF-16."""
    wide = "\u0a0a\u010a\u0a00 日本" if encoding.startswith("utf") else "é" if "1" in encoding[-4:] else "日本"
    lines = [f"{wide} {number}" for number in range(12)] if encoding not in ("latin-1", "cp1252") else ["é", "ü"] * 6
    path = tmp_path / "app.log"
    data = "".join(f"{line}\n" for line in lines).encode(encoding)
    path.touch()
    reader = Reader(path, format="text", encoding=encoding, block_bytes=block_bytes)
    for start in range(0, len(data), 7):
        append(path, data[start : start + 7])
        reader.turn()
        reader.restart()
    assert messages(reader) == lines
    assert not reader.counted
    assert next(iter(reader.positions.values())).offset == len(data)


@pytest.mark.parametrize(
    ("encoding", "mark"),
    [("utf-16", b"\xff\xfe"), ("utf-16", b"\xfe\xff"), ("utf-32", b"\0\0\xfe\xff"), ("utf-8", b"\xef\xbb\xbf")],
)
def test_a_byte_order_mark_decides_and_is_not_part_of_a_record(tmp_path: Path, encoding: str, mark: bytes) -> None:
    path = tmp_path / "app.log"
    order = {b"\xff\xfe": "-le", b"\xfe\xff": "-be", b"\0\0\xfe\xff": "-be"}.get(mark, "")
    path.write_bytes(mark)
    reader = Reader(path, format="text", encoding=encoding)
    reader.turn()
    append(path, "eins\n".encode(encoding + order))
    reader.turn()
    reader.restart()
    append(path, "zwei\n".encode(encoding + order))
    reader.turn()
    assert messages(reader) == ["eins", "zwei"]


@pytest.mark.parametrize("format_", ["json", "raw"])
def test_a_byte_order_mark_is_skipped_in_every_format(tmp_path: Path, format_: str) -> None:
    path = tmp_path / "app.log"
    path.write_bytes(b'\xef\xbb\xbf{"a":1}\n{"b":1}\n')
    reader = Reader(path, format=format_)
    reader.turn()
    assert reader.lines == [b'{"a":1}', b'{"b":1}']
    reader.restart()
    append(path, b'{"c":1}\n')
    assert reader.turn() == [b'{"c":1}']


def test_a_rotated_file_that_holds_a_mark_alone_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_bytes(b"\xef\xbb\xbf")
    reader = Reader(path, format="text")
    reader.turn()
    path.rename(tmp_path / "app.log.1")
    path.write_bytes(b"next\n")
    for _ in range(4):
        reader.turn(10.0)
    assert messages(reader) == ["next"]
    assert reader.follower.lag_bytes() == 0


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_it_starts_at_the_end_after_the_last_whole_line(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "app.log"
    path.write_bytes("old\u0a0a\nhal".encode(encoding))
    reader = Reader(path, format="text", encoding=encoding, start_at="end")
    reader.turn()
    append(path, "f\nnew\n".encode("utf-16-le" if encoding == "utf-16" else encoding))
    reader.turn()
    assert messages(reader) == ["half", "new"]


def parts_of(lines: list[bytes]) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in lines]
    assert [part["part"] for part in found] == list(range(1, len(found) + 1))
    assert len({part["line_id"] for part in found}) == 1
    return found


def test_a_line_too_long_for_a_record_comes_in_parts_with_one_id(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    line = "é" * 1000
    path.write_text(f"{line}\nshort\n{line}\n")
    reader = Reader(path, format="text", max_record_bytes=1000, block_bytes=64 * 1024)
    reader.turn()
    short = reader.lines.index(b'{"message":"short"}')
    one, other = parts_of(reader.lines[:short]), parts_of(reader.lines[short + 1 :])
    for parts in (one, other):
        assert "".join(part["message"] for part in parts) == line
        assert {part["parts"] for part in parts} == {len(parts)}
    assert one[0]["line_id"] != other[0]["line_id"]
    assert max(map(len, reader.lines)) <= 1000
    assert reader.counted == {"cut": 2}


def test_a_line_longer_than_a_read_comes_in_parts_with_one_id_also_over_restarts(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    line = "aé€" * 2000
    path.write_text(f"{line}\nshort\n")
    reader = Reader(path, format="text", max_record_bytes=1001, block_bytes=1001)
    reader.scan()
    while reader.read(1):
        reader.commit()
        reader.restart()
        reader.scan()
    *parts, short = reader.lines
    found = parts_of(parts)
    assert "".join(part["message"] for part in found) == line
    assert {part["parts"] for part in found} == {len(found)}
    assert json.loads(short) == {"message": "short"}
    assert reader.counted["cut"] == 1
    assert not reader.counted["undecodable"]


def test_a_rotated_file_gives_its_unfinished_line_even_if_it_ends_within_a_character(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_bytes("one\ntwo".encode("utf-16-le") + b"\x00")
    reader = Reader(path, format="text", encoding="utf-16")
    reader.turn()
    path.rename(tmp_path / "app.log.1")
    reader.turn(10.0)
    reader.turn(10.0)
    assert messages(reader) == ["one", "two\ufffd"]


def test_raw_lines_are_records_whatever_they_hold() -> None:
    block = b'{"a":1}\r\n\n\xff\xfe\nxxxxxyyyyyz\n'
    assert rawlines.split(block, max_record_bytes=100).values == [b'{"a":1}\r', b"", b"\xff\xfe", b"xxxxxyyyyyz"]
    assert rawlines.split(b"xxxxxyyyyyz\n\nxxxxx\n", max_record_bytes=5).values == [
        b"xxxxx",
        b"yyyyy",
        b"z",
        b"",
        b"xxxxx",
    ]
    assert rawlines.split(b"a\nbc\n", max_record_bytes=100, ends=[2, 5]).values == [b"a\n", b"bc\n"]
    assert rawlines.split(b"", max_record_bytes=5).values == []


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=600), st.sampled_from(ENCODINGS), st.integers(1, 64))
def test_any_bytes_make_valid_records_and_are_read_to_the_end(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, encoding: str, block_bytes: int
) -> None:
    path = tmp_path_factory.mktemp("any") / "app.log"
    path.write_bytes(data)
    reader = Reader(path, format="text", encoding=encoding, block_bytes=block_bytes, max_record_bytes=256)
    reader.turn()
    for line in reader.lines:
        assert len(line) <= 256
        assert jsonlines.split(line + b"\n", invalid="drop", max_record_bytes=256).invalid == 0
    os.rename(path, f"{path}.1")
    reader.turn(10.0)
    reader.turn(10.0)
    reader.follower.close()
    if not data.startswith((b"\x1f\x8b\x08", b"BZh")):
        read = [mark.offset for mark in reader.positions.values()]
        assert not read or not data[read[0] :].strip(b"\0"), "zeros at the end are no data yet"


async def test_raw_lines_are_stored_as_they_are_and_printed_in_base64(tmp_path: Path) -> None:
    path, spool_path = tmp_path / "app.log", tmp_path / "s.spool"
    path.write_bytes(b'\xff\x00\r\n\n{"a":1}\n')
    source_settings = FileSource(paths=(str(path),), format="raw")
    stream = msgspec.structs.replace(STREAM, source=source_settings)
    async with Spool(spool_path) as spool:
        source = FileTail(source_settings, max_record_bytes=1000)
        async with pipeline_on(spool, source, stream) as pipeline, running(pipeline):
            backlog = pipeline.senders[0].backlog
            await eventually(lambda: backlog.totals.accepted == 3 and all(row.committed for row in backlog.rows))
            assert backlog.totals.invalid == 0
    stored = await records_in(spool_path)
    assert stored == [b"\xff\x00\r", b"", b'{"a":1}']
    assert [printed(record) for record in stored] == [b'{"record_base64":"/wAN"}', b'{"record_base64":""}', b'{"a":1}']
