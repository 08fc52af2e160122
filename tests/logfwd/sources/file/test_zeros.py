"""Holes, preallocated and memory-mapped files: zeros that are not data."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from logfwd.sources.file.zeros import end_of_zeros
from tests.logfwd.sources.file.follow_harness import Reader

MIB = 1024 * 1024


def test_the_hole_of_a_writer_that_goes_on_after_a_truncate_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    with path.open("wb") as file:
        file.write(b'{"n":0}\n' * 200_000)
        file.flush()
        reader = Reader(path)
        reader.turn()
        os.truncate(path, 0)
        reader.turn()
        file.write(b'{"n":"after-1"}\n')
        file.flush()
        reader.turn()
        file.write(b'{"n":"after-2"}\n')
    reader.turn()
    assert reader.lines[200_000:] == [b'{"n":"after-1"}', b'{"n":"after-2"}']
    assert reader.follower.lag_bytes() == 0


def test_a_memory_mapped_file_is_read_as_its_lines_are_written(tmp_path: Path) -> None:
    path = tmp_path / "m.log"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, 4 * MIB)
    reader = Reader(path)
    written, at = [], 0
    with mmap.mmap(fd, 4 * MIB) as view:
        for batch in range(6):
            for number in range(5000):
                line = b'{"n":%d}\n' % (batch * 5000 + number)
                view[at : at + len(line)] = line
                at += len(line)
                written.append(line.rstrip())
            view[at : at + 5] = b'{"n":'  # half a line
            view.flush()
            reader.turn()
            assert reader.lines == written
            assert reader.follower.lag_bytes() in (0, 5)
    os.close(fd)


def test_what_is_written_to_mapped_memory_is_read_although_the_file_gets_no_new_time(tmp_path: Path) -> None:
    path = tmp_path / "m.log"
    with path.open("w+b") as file:
        file.truncate(MIB)
        with mmap.mmap(file.fileno(), MIB) as view:
            view[:4] = b"one\n"
            reader = Reader(path)
            reader.turn()
            written_ns = path.stat().st_mtime_ns
            at = 4
            for piece in (b"two\n", b"th", b"ree\n", b"four\n"):  # all in the page that was written to before
                view[at : at + len(piece)] = piece
                at += len(piece)
                assert path.stat().st_mtime_ns == written_ns, "it has a new time: this test shows nothing"
                reader.turn()
                assert reader.lines == bytes(view[: view.rfind(b"\n") + 1]).splitlines()
    assert reader.follower.lag_bytes() == 0


def test_what_is_written_to_mapped_memory_during_a_read_is_read_at_the_next_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, pread = tmp_path / "m.log", os.pread
    with path.open("w+b") as file:
        file.truncate(MIB)
        with mmap.mmap(file.fileno(), MIB) as view:
            view[:4] = b"one\n"
            reader = Reader(path)
            reader.turn()

            def read_and_write(fd: int, size: int, offset: int) -> bytes:
                data = pread(fd, size, offset)
                if size > MIB:
                    view[8:12] = b"six\n"
                return data

            view[4:8] = b"two\n"
            monkeypatch.setattr(os, "pread", read_and_write)
            reader.turn()
            monkeypatch.setattr(os, "pread", pread)
            reader.turn()
            assert reader.lines == [b"one", b"two", b"six"]


def test_a_file_that_may_be_mapped_stays_open_while_others_are_closed(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    with path.open("w+b") as file:
        file.truncate(MIB)
        with mmap.mmap(file.fileno(), MIB) as view:
            view[:4] = b"one\n"
            reader = Reader(tmp_path / "*.log", max_open_files=2)
            reader.turn()
            for number in range(4):
                (tmp_path / f"b{number}.log").write_bytes(b"other\n")
                reader.turn()
            view[4:8] = b"two\n"
            assert b"two" in reader.turn()


@pytest.mark.parametrize("begun", [b"", b"one\n", b"one\ntw", b"x" * 200_000])
def test_reserved_room_is_not_before_the_end_at_which_a_stream_starts(tmp_path: Path, begun: bytes) -> None:
    path = tmp_path / "m.log"
    path.write_bytes(begun + bytes(MIB))
    reader = Reader(path, start_at="end")
    reader.turn()
    with path.open("r+b") as file:
        file.seek(len(begun))
        file.write(b"o\nthree\n")
    reader.turn()
    assert reader.lines == [begun[begun.rfind(b"\n") + 1 :] + b"o", b"three"]


def test_zeros_within_a_line_are_part_of_it(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b"one\ntwo\0\0half\n")
    reader = Reader(path)
    reader.turn()
    assert reader.lines == [b"one", b"two\0\0half"]


def test_filler_between_lines_is_skipped_and_the_last_line_of_a_rotated_file_ends_before_it(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b"\0\0one\n" + bytes(5 * MIB) + b"two\n\0three" + bytes(3 * MIB))
    reader = Reader(path)
    reader.turn()
    assert reader.lines == [b"one", b"two"]
    path.rename(tmp_path / "a.log.1")
    reader.turn()
    reader.turn(seconds=1000)
    reader.turn(seconds=1000)
    assert reader.lines == [b"one", b"two", b"three"]
    assert reader.open_files == 0


def test_a_line_before_a_large_hole_waits_for_its_end(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b"half")
    os.truncate(path, 64 * MIB)
    reader = Reader(path)
    reader.turn()
    assert reader.lines == []
    with path.open("r+b") as file:
        file.seek(4)
        file.write(b" whole\n")
    reader.turn()
    assert reader.lines == [b"half whole"]


def test_zeros_are_characters_in_utf_16(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes("\0one\n\0\0two\n".encode("utf-16-be"))
    reader = Reader(path, format="text", encoding="utf-16-be")
    reader.turn()
    assert [line.replace(b" ", b"") for line in reader.lines] == [
        b'{"message":"\\u0000one"}',
        b'{"message":"\\u0000\\u0000two"}',
    ]


@pytest.mark.parametrize("hole", [0, 3, 70_000, 5 * MIB])
def test_the_end_of_zeros_is_found_with_and_without_a_hole(tmp_path: Path, hole: int) -> None:
    path = tmp_path / "a"
    with path.open("wb") as file:
        file.write(b"ab" + bytes(10))
        file.seek(hole, os.SEEK_CUR)
        file.write(b"x")
    with path.open("rb") as file:
        assert end_of_zeros(file.fileno(), 2) == 12 + hole
        assert end_of_zeros(file.fileno(), 0) == 0
        assert end_of_zeros(file.fileno(), 13 + hole) is None
    os.truncate(path, 12 + hole)
    with path.open("rb") as file:
        assert end_of_zeros(file.fileno(), 2) is None


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from([b"a\n", b"bc\n", b"\0", b"\0" * 5, b"d"]), max_size=14), st.integers(1, 9), st.data())
def test_any_file_of_lines_and_zeros_is_read_alike_in_one_piece_and_in_growing_ones(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], block_bytes: int, data: st.DataObject
) -> None:
    content = b"".join(pieces)
    path = tmp_path_factory.mktemp("zeros") / "a.log"
    expected = [line.lstrip(b"\0") for line in content[: content.rfind(b"\n") + 1].split(b"\n")[:-1]]
    at, reader = 0, None
    with path.open("ab", buffering=0) as file:
        while at < len(content):
            size = data.draw(st.integers(1, len(content)))
            file.write(content[at : at + size])
            at += size
            reader = reader or Reader(path, block_bytes=block_bytes)
            reader.turn()
    assert (reader.lines if reader else []) == expected


def test_reserved_room_that_is_cut_off_between_two_looks_is_no_trouble(tmp_path: Path) -> None:
    path = tmp_path / "m.log"
    with path.open("wb", buffering=0) as file:
        os.posix_fallocate(file.fileno(), 0, MIB)
        reader = Reader(path)
        reader.turn()
        file.write(b"one\n")
        reader.turn()
        file.write(b"two\n")
        file.truncate(8)
    for _ in range(2):
        reader.now += 1
        reader.scan()
    reader.turn()
    assert reader.lines == [b"one", b"two"]
    assert not reader.files


def test_zeros_between_lines_do_not_look_like_utf_16(tmp_path: Path) -> None:
    log = tmp_path / "m.log"
    reader = Reader(log)
    log.write_bytes(bytes(100) + b"one\n" + bytes(99) + b"two\n\0\0\0three\n")
    with capture_logs() as logs:
        reader.turn()
    assert reader.lines == [b"one", b"two", b"three"]
    assert {each["event"] for each in logs} == {"zeros skipped"}
