"""Container lines and multi-line records in files: joined exactly once, whatever is killed or rotated."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from logfwd.intake import jsonlines
from logfwd.sources.settings import Multiline
from tests.logfwd.sources.file.follow_harness import Reader, append

TIME = "2026-01-31T10:00:00.{:09d}Z"


def cri(number: int, stream: str, tag: str, content: str) -> bytes:
    return f"{TIME.format(number)} {stream} {tag} {content}\n".encode()


def docker(number: int, stream: str, log: str, **more: Any) -> bytes:
    return json.dumps({"log": log, "stream": stream, "time": TIME.format(number)} | more).encode() + b"\n"


def records(reader: Reader) -> list[dict[str, Any]]:
    return [json.loads(line) for line in reader.lines]


INTERLEAVED = [
    cri(0, "stdout", "P", "one "),
    cri(1, "stderr", "F", "error 1"),
    cri(2, "stdout", "P", "and "),
    cri(3, "stderr", "P", "err"),
    cri(4, "stdout", "F", "two"),
    cri(5, "stdout", "F", '{"a":1}'),
    cri(6, "stderr", "F", "or 2"),
    cri(7, "stdout", "P", '{"b":'),
    cri(8, "stderr", "F", "error 3"),
    cri(9, "stdout", "F", '2,"time":"own"}'),
    cri(10, "stdout", "F", "the end"),
]
JOINED = [
    {"message": "error 1", "time": TIME.format(1), "stream": "stderr"},
    {"message": "one and two", "time": TIME.format(0), "stream": "stdout"},
    {"a": 1, "time": TIME.format(5), "stream": "stdout"},
    {"message": "error 2", "time": TIME.format(3), "stream": "stderr"},
    {"message": "error 3", "time": TIME.format(8), "stream": "stderr"},
    {"b": 2, "time": "own", "stream": "stdout"},
    {"message": "the end", "time": TIME.format(10), "stream": "stdout"},
]


def rotate(path: Path, name: str = "0.log.20260131-101010") -> None:
    path.rename(path.parent / name)


@pytest.mark.parametrize("length", range(len(b"".join(INTERLEAVED)) + 1))
def test_every_prefix_of_an_interleaved_cri_file_is_a_crash_point(tmp_path: Path, length: int) -> None:
    data, path = b"".join(INTERLEAVED), tmp_path / "0.log"
    path.write_bytes(data[:length])
    reader = Reader(path, format="cri")
    reader.turn()
    reader.restart()
    append(path, data[length:])
    reader.turn()
    assert records(reader) == JOINED


@pytest.mark.parametrize("length", range(len(b"".join(INTERLEAVED)) + 1))
def test_every_prefix_is_a_crash_point_also_with_blocks_that_were_read_and_not_committed(
    tmp_path: Path, length: int
) -> None:
    data, path = b"".join(INTERLEAVED), tmp_path / "0.log"
    path.write_bytes(data[:length])
    reader = Reader(path, format="cri", block_bytes=48, max_record_bytes=300)
    reader.scan()
    reader.read(1 + length % 9)
    reader.commit()
    reader.read(1 + length % 4)
    reader.restart()
    append(path, data[length:])
    reader.turn()
    assert records(reader) == JOINED


def test_a_kill_after_each_commit_and_with_blocks_on_their_way_is_exact(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_bytes(b"".join(INTERLEAVED))
    reader = Reader(path, format="cri", block_bytes=32, max_record_bytes=300)
    reader.scan()
    while reader.read(1):
        reader.commit()
        reader.read(2)
        reader.restart()
        reader.scan()
    assert records(reader) == JOINED


@pytest.mark.parametrize("line", range(len(INTERLEAVED) + 1))
@pytest.mark.parametrize("killed", [False, True])
def test_a_rotation_at_any_line_joins_over_it(tmp_path: Path, line: int, killed: bool) -> None:
    path = tmp_path / "0.log"
    path.write_bytes(b"".join(INTERLEAVED[:line]))
    reader = Reader(path, format="cri")
    reader.turn()
    rotate(path)
    path.write_bytes(b"".join(INTERLEAVED[line:]))
    if killed:
        reader.restart()
    reader.turn()
    reader.restart()
    reader.turn(10.0)
    reader.turn(10.0)
    assert records(reader) == JOINED


@pytest.mark.parametrize("second", range(1, len(INTERLEAVED)))
def test_two_rotations_and_a_kill_after_each_commit_join_over_all_files(tmp_path: Path, second: int) -> None:
    path = tmp_path / "0.log"
    path.touch()
    reader = Reader(path, format="cri", block_bytes=32, max_record_bytes=300)
    reader.turn()
    cuts = [0, second // 2, second, len(INTERLEAVED)]
    for number, (begin, end) in enumerate(pairwise(cuts)):
        if number:
            rotate(path, f"0.log.{number}")
            path.touch()
        append(path, b"".join(INTERLEAVED[begin:end]))
        reader.now += 1
        reader.scan()
        while reader.read(1):
            reader.commit()
            reader.restart()
            reader.now += 1
            reader.scan()
    reader.turn(10.0)
    assert records(reader) == JOINED


def test_the_rest_of_a_line_that_is_written_before_the_rename_is_seen_goes_first(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_bytes(cri(0, "stdout", "P", "a"))
    reader = Reader(path, format="cri")
    reader.turn()
    rotate(path)
    append(tmp_path / "0.log.20260131-101010", cri(1, "stdout", "P", "b"))
    path.write_bytes(cri(2, "stdout", "F", "c"))
    reader.turn()
    assert [record["message"] for record in records(reader)] == ["abc"]


@pytest.mark.parametrize("is_killed", [False, True])
@pytest.mark.parametrize("is_begun", [False, True])
def test_a_file_that_is_found_late_is_not_joined_to_one_that_is_younger(
    tmp_path: Path, is_begun: bool, is_killed: bool
) -> None:
    path, late = tmp_path / "0.log", tmp_path / "0.log.20260131-101011"
    path.touch()
    reader = Reader(path, format="cri")
    reader.turn()
    rotate(path)
    late.touch()  # empty when it is seen, so nobody's yet
    path.write_bytes(cri(4, "stdout", "F", "d") + cri(5, "stdout", "P", "e"))
    reader.scan()
    if is_begun:
        reader.read()
    late.write_bytes(cri(1, "stdout", "F", "a") + cri(2, "stdout", "P", "b") + cri(3, "stdout", "P", "c"))
    reader.turn()
    if is_killed:
        reader.restart()
    append(path, cri(6, "stdout", "F", "f"))
    for _ in range(3):
        reader.turn(100.0)
    assert sorted(messages(reader)) == (["a", "bc", "d", "ef"] if is_begun else ["a", "bcd", "ef"])


def test_what_is_written_to_a_file_after_its_successor_was_begun_is_not_joined_to_that(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_bytes(cri(0, "stdout", "F", "a"))
    reader = Reader(path, format="cri")
    reader.turn()
    rotate(path)
    path.write_bytes(cri(1, "stdout", "F", "b"))
    reader.turn()
    append(tmp_path / "0.log.20260131-101010", cri(2, "stdout", "P", "c"))
    for _ in range(3):
        reader.turn(100.0)
    append(path, cri(3, "stdout", "F", "d"))
    reader.turn()
    assert messages(reader) == ["a", "b", "c", "d"]


def test_an_open_record_of_a_file_without_successor_is_a_record_once_it_is_rotated(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_bytes(cri(0, "stdout", "P", "half"))
    reader = Reader(path, format="cri")
    reader.turn()
    reader.turn(100.0)
    assert reader.lines == [], "its rest may come at any time"
    path.rename(tmp_path / "0.log.20260131-101010")
    for _ in range(3):
        reader.turn(10.0)
    assert [record["message"] for record in records(reader)] == ["half"]
    reader.restart()
    reader.turn(10.0)
    assert len(reader.lines) == 1


def test_a_deleted_file_is_kept_open_until_what_is_open_in_it_is_stored(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_bytes(cri(0, "stdout", "P", "begin "))
    reader = Reader(path, format="cri")
    reader.turn()
    path.unlink()
    path.touch()
    for _ in range(3):
        reader.turn(10.0)
    reader.restart()
    append(path, cri(1, "stdout", "F", "and end"))
    reader.turn()
    assert [record["message"] for record in records(reader)] == ["begin and end"]


def test_what_is_not_a_line_of_the_runtime_is_judged_as_in_format_json(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_bytes(b'plain\n{"a":1}\n' + cri(0, "stdin", "F", "x") + cri(1, "stdout", "X", "y") + b"\n")
    reader = Reader(path, format="cri")
    reader.turn()
    block = b"".join(block.data for block in reader.blocks)
    assert jsonlines.split(block, invalid="drop", max_record_bytes=1000) == jsonlines.Lines([b'{"a":1}'], 3, 1)


def test_docker_lines_are_unwrapped_and_their_attrs_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "c-json.log"
    attrs = {"tag": "web", "labels": {"a": "b"}}
    path.write_bytes(
        docker(0, "stdout", "plain é\n", attrs=attrs)
        + docker(1, "stdout", "long, ")
        + docker(2, "stderr", '{"level":"x"}\n')
        + docker(3, "stdout", "in two\n")
        + docker(4, "stdout", "{}\r\n", attrs=attrs)
        + docker(5, "stdout", '{"time":"own","attrs":1}\n', attrs=attrs)
        + docker(6, "stdout", "\n")
    )
    reader = Reader(path, format="docker")
    reader.turn()
    assert records(reader) == [
        {"message": "plain é", "time": TIME.format(0), "stream": "stdout", "attrs": attrs},
        {"level": "x", "time": TIME.format(2), "stream": "stderr"},
        {"message": "long, in two", "time": TIME.format(1), "stream": "stdout"},
        {"time": TIME.format(4), "stream": "stdout", "attrs": attrs},
        {"time": "own", "attrs": 1, "stream": "stdout"},
    ]


def test_a_record_beyond_the_bounds_comes_in_parts_with_one_id_over_kills(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    pieces = [f"é{number:06d}" * 20 for number in range(40)]
    lines = [cri(number, "stdout", "P", piece) for number, piece in enumerate(pieces)]
    path.write_bytes(b"".join(lines) + cri(99, "stdout", "F", "!") + cri(100, "stdout", "F", "next"))
    reader = Reader(path, format="cri", block_bytes=300, max_record_bytes=1000)
    reader.scan()
    while reader.read(1):
        reader.commit()
        reader.restart()
        reader.scan()
    *parts, last = records(reader)
    assert "".join(part["message"] for part in parts) == "".join(pieces) + "!"
    assert [part["part"] for part in parts] == list(range(1, len(parts) + 1))
    assert len({part["line_id"] for part in parts}) == 1
    assert {part["time"] for part in parts} == {TIME.format(0)}
    assert {part["parts"] for part in parts} == {len(parts)}
    assert last["message"] == "next"
    assert max(map(len, reader.lines)) <= 1000
    assert not reader.counted["undecodable"]


def test_of_a_long_line_that_a_rotation_falls_into_only_the_last_part_says_how_many_over_kills(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    pieces = [f"é{number:06d}" * 20 for number in range(40)]
    lines = [cri(number, "stdout", "P", piece) for number, piece in enumerate(pieces)]
    path.write_bytes(b"".join(lines[:30]))
    reader = Reader(path, format="cri", block_bytes=300, max_record_bytes=1000)
    reader.turn()
    rotate(path)
    path.write_bytes(b"".join(lines[30:]) + cri(99, "stdout", "F", "!") + cri(100, "stdout", "F", "next"))
    for _ in range(60):
        reader.scan()
        reader.read(1)
        reader.commit()
        reader.read(1)
        reader.restart()
    reader.turn()
    *parts, last = records(reader)
    assert "".join(part["message"] for part in parts) == "".join(pieces) + "!"
    assert [part["part"] for part in parts] == list(range(1, len(parts) + 1))
    assert len({part["line_id"] for part in parts}) == 1
    assert [part["parts"] for part in parts if "parts" in part] == [len(parts)] * sum("parts" in part for part in parts)
    assert parts[-1]["parts"] == len(parts)
    assert last["message"] == "next"
    assert all(len(mark.encode()) < 4000 for mark in reader.positions.values()), "no position holds the whole line"


def test_four_long_lines_of_a_source_wait_for_their_ends_and_a_fifth_leaves_in_parts(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.log" for number in range(5)]
    for path in paths:
        path.write_bytes(cri(0, "stdout", "P", "x" * 400) * 3)
    reader = Reader(*paths, format="cri", max_record_bytes=1000)
    reader.turn()
    assert [record.get("parts") for record in records(reader)] == [None, None]
    for path in paths:
        append(path, cri(1, "stdout", "F", "!"))
    reader.turn()
    assert sorted(record.get("parts", 0) for record in records(reader)) == [0, 0, *[2] * 8, 3]


def test_a_thousand_parts_are_the_most_that_wait(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_bytes(cri(0, "stdout", "P", "x") * 2500 + cri(1, "stdout", "F", "!"))
    reader = Reader(path, format="cri")
    reader.turn()
    assert [len(record["message"]) for record in records(reader)] == [1000, 1000, 501]


@pytest.mark.parametrize("format_", ["text", "json"])
def test_what_is_open_when_the_format_is_changed_does_not_hold_its_file_for_ever(tmp_path: Path, format_: str) -> None:
    path = tmp_path / "0.log"
    path.write_bytes(cri(0, "stdout", "P", "half"))
    before = Reader(path, format="cri")
    before.turn()
    reader = Reader(path, format=format_)
    reader.positions, reader.scans = before.positions, before.scans
    reader.restart()
    with capture_logs() as logs:
        reader.turn()
    assert [each["event"] for each in logs if each["log_level"] == "warning"] == ["unfinished record lost"]
    rotate(path)
    path.write_bytes(b'{"n":1}\n')
    for _ in range(4):
        reader.turn(10.0)
    assert len(reader.lines) == 1
    assert reader.open_files == 1


# -- multi-line records --------------------------------------------------------------------------------------------

STACK = ["2026 first", "2026 second", "  at a", "", "  at b", "2026 third", "  at c"]
STACKS = ["2026 first", "2026 second\n  at a\n\n  at b", "2026 third\n  at c"]
START, CONTINUE = Multiline(start="^2026"), Multiline(continue_=r"^(\s|$)")


def multi(path: Path, format_: str = "text", multiline: Multiline = START, block_bytes: int = 1 << 20) -> Reader:
    return Reader(path, block_bytes=block_bytes, format=format_, multiline=multiline)


def messages(reader: Reader) -> list[str]:
    return [record["message"] for record in records(reader)]


@pytest.mark.parametrize("multiline", [START, CONTINUE])
@pytest.mark.parametrize("length", range(len("\n".join(STACK)) + 2))
def test_every_prefix_of_a_multi_line_file_is_a_crash_point(tmp_path: Path, multiline: Multiline, length: int) -> None:
    path, data = tmp_path / "app.log", "".join(f"{line}\n" for line in STACK).encode()
    path.write_bytes(data[:length])
    reader = multi(path, multiline=multiline)
    reader.turn(0.0)
    reader.restart()
    append(path, data[length:])
    reader.turn(0.0)
    reader.follower.end_due(reader.now + 10)
    reader.now += 10
    reader.read()
    reader.commit()
    assert messages(reader) == STACKS


def test_a_record_waits_for_its_next_line_and_is_whole_after_wait(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_bytes(b"2026 first\n  at a\n")
    reader = multi(path)
    reader.turn(0.0)
    assert reader.lines == []
    assert reader.follower.end_due(reader.now + 0.5) == pytest.approx(reader.now + 1)
    reader.now += 1
    reader.follower.end_due(reader.now)
    reader.read()
    reader.commit()
    assert messages(reader) == ["2026 first\n  at a"]
    reader.restart()
    append(path, b"2026 second\n")
    reader.turn(0.0)
    reader.now += 2
    reader.follower.end_due(reader.now)
    reader.read()
    reader.commit()
    assert messages(reader) == ["2026 first\n  at a", "2026 second"]


def test_a_multi_line_record_goes_on_after_a_rotation(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_bytes(b"2026 first\n  at a\n")
    reader = multi(path)
    reader.turn(0.0)
    path.rename(tmp_path / "app.log.1")
    path.write_bytes(b"  at b\n2026 second\n")
    reader.turn(0.1)
    assert messages(reader) == ["2026 first\n  at a\n  at b"]


def test_multi_line_records_of_containers_are_joined_for_each_stream(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_bytes(
        cri(0, "stdout", "F", "2026 one")
        + cri(1, "stderr", "F", "2026 error")
        + cri(2, "stdout", "P", "  at ")
        + cri(3, "stderr", "F", "  in x")
        + cri(4, "stdout", "F", "a")
        + cri(5, "stdout", "F", "2026 two")
        + cri(6, "stderr", "F", "2026 end")
    )
    reader = multi(path, "cri")
    reader.turn(0.0)
    assert [(record["message"], record["stream"]) for record in records(reader)] == [
        ("2026 one\n  at a", "stdout"),
        ("2026 error\n  in x", "stderr"),
    ]


def test_the_bounds_of_multi_line_records_make_parts(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    lines = ["2026 first", *(f"  at {number}" for number in range(7)), "2026 second", "2026 third"]
    path.write_text("".join(f"{line}\n" for line in lines))
    reader = multi(path, multiline=Multiline(start="^2026", max_lines=3), block_bytes=64)
    reader.turn(0.0)
    reader.restart()
    *parts, second = records(reader)
    assert "".join(part["message"] for part in parts) == "\n".join(lines[:8])
    assert [part["message"].count("\n") for part in parts] == [2, 3, 2]
    assert [part["part"] for part in parts] == [1, 2, 3]
    assert second == {"message": "2026 second"}
    assert reader.counted == {"cut": 1}


# -- a model -------------------------------------------------------------------------------------------------------

LONG = "é€x" * 40
LINE = st.tuples(st.sampled_from(["stdout", "stderr"]), st.sampled_from("PPF"), st.sampled_from(["a", " b", "", LONG]))
EVENT = st.sampled_from(["commit", "kill", "rotate", "read"])


def whole(records: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Stream and text of each record, whose parts may have others between them, in the order of their ends."""
    found, begun = [], dict[str, list[str]]()
    for record in records:
        parts = begun.setdefault(record.get("line_id", ""), [])
        parts.append(record["message"])
        assert record.get("part", 1) == len(parts)
        if record.get("parts", 0 if "part" in record else 1) == len(parts):
            found.append((record["stream"], "".join(begun.pop(record.get("line_id", "")))))
    return found


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(LINE, EVENT), max_size=25), st.sampled_from([16, 10_000]))
def test_the_joiner_agrees_with_a_simple_model(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[tuple[str, str, str], str]], block_bytes: int
) -> None:
    """The model joins the parts of each stream by themselves; kills and rotations change nothing."""
    path = tmp_path_factory.mktemp("model") / "0.log"
    path.touch()
    reader = Reader(path, format="cri", block_bytes=block_bytes, max_record_bytes=256)
    reader.turn(0.0)
    expected, open_ = list[tuple[str, str]](), {"stdout": "", "stderr": ""}
    rotations = 0
    for number, ((stream, tag, content), event) in enumerate(events):
        append(path, cri(number, stream, tag, content))
        open_[stream] += content
        if tag == "F":
            if open_[stream].strip():
                expected.append((stream, open_[stream]))
            open_[stream] = ""
        if event == "commit":
            reader.turn(0.0)
        elif event == "read":
            reader.scan()
            reader.read(1)
        elif event == "kill":
            reader.restart()
            reader.turn(0.0)
        else:
            rotations += 1
            path.rename(f"{path}.{rotations}")
            path.touch()
            reader.turn(0.0)
    reader.restart()
    reader.turn(0.0)
    got = whole(records(reader))
    reader.follower.close()
    assert got == expected


# -- full speed ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", ["cri", "docker"])
def test_a_tree_written_and_rotated_while_it_is_read_loses_and_repeats_nothing(tmp_path: Path, format_: str) -> None:
    """Three containers; their files are rotated twenty times, also within lines, with kills in between."""
    random_ = random.Random(7)
    folders = [tmp_path / f"pod-{number}" for number in range(3)]
    for folder in folders:
        folder.mkdir()
        (folder / "0.log").write_bytes(b'{"message":"pod 0"}\n')  # so that there is a position before the first kill
    reader = Reader(tmp_path / "*" / "0.log", format=format_, block_bytes=4096)
    reader.turn(0.0)
    written = 1
    for turn in range(60):
        for folder in folders:
            data = b""
            for _ in range(random_.randrange(40)):
                stream = random_.choice(["stdout", "stderr"])
                text = f"{folder.name} {written} " + "x" * random_.randrange(80)
                cut = random_.randrange(len(text))
                head, tail = text[:cut], text[cut:]
                if format_ == "cri":
                    data += cri(0, stream, "P", head) + cri(0, stream, "F", tail)
                else:
                    data += docker(0, stream, head) + docker(0, stream, f"{tail}\n")
                written += 1
            middle = data.find(b"\n", random_.randrange(len(data))) + 1 if data else 0
            append(folder / "0.log", data[:middle])
            if turn % 3 == 0:
                (folder / "0.log").rename(folder / f"0.log.20260131-{turn:06d}")
            append(folder / "0.log", data[middle:])
        reader.scan()
        reader.read(random_.randrange(6))
        if random_.random() < 0.5:
            reader.commit()
        if random_.random() < 0.3:
            reader.restart()
    reader.turn(0.1)
    reader.turn(0.1)
    numbers = sorted(int(record["message"].split()[1]) for record in records(reader))
    assert numbers == [0, 0, *range(written)]
