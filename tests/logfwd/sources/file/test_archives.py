"""Compressed files: recognised as what was read before, their rest read once, and what is not read is said."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from logfwd.sources.settings import Multiline
from tests.logfwd.sources.file.follow_harness import Reader, append, numbered
from tests.logfwd.sources.file.test_follow import events
from tests.logfwd.sources.file.test_plain import PACKS
from tests.logfwd.sources.file.test_rotation import expected

SUFFIXES = {"gzip": ".gz", "zstd": ".zst"}
both_ways = pytest.mark.parametrize("how", PACKS)
NOT_READ, DAMAGED = "compressed file not read", "compressed file damaged"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "app.log"


def pack(path: Path, how: str = "gzip") -> Path:
    """As gzip(1) does: the packed file has the times of its original, which is deleted once it is whole."""
    packed, status = Path(f"{path}{SUFFIXES[how]}"), path.stat()
    packed.write_bytes(PACKS[how](path.read_bytes()))
    os.utime(packed, ns=(status.st_atime_ns, status.st_mtime_ns))
    path.unlink()
    return packed


def rotate(log: Path, how: str = "gzip") -> Path:
    """logrotate's `compress`, without `delaycompress`."""
    for index in range(9, 0, -1):
        if (old := Path(f"{log}.{index}{SUFFIXES[how]}")).exists():
            old.rename(f"{log}.{index + 1}{SUFFIXES[how]}")
    return pack(log.rename(f"{log}.1"), how)


def turns(reader: Reader, count: int = 12) -> None:
    for _ in range(count):
        reader.turn(2)


@both_ways
@pytest.mark.parametrize("pattern", ["app.log", "app.log*"])
@pytest.mark.parametrize("read", [3, 200])
def test_the_rest_of_a_file_that_was_compressed_while_nobody_looked_is_read_before_its_successor(
    tmp_path: Path, log: Path, how: str, pattern: str, read: int
) -> None:
    reader = Reader(tmp_path / pattern, block_bytes=1000, max_record_bytes=200)
    append(log, numbered(0, read))
    reader.turn()
    append(log, numbered(read, 500))
    rotate(log, how)
    append(log, numbered(500, 510))
    reader.restart()
    turns(reader)
    append(log, numbered(510, 520))
    turns(reader)
    assert reader.lines == expected((0, 520))
    reader.restart()
    turns(reader)
    rotate(log, how)
    reader.restart()
    turns(reader)
    assert reader.lines == expected((0, 520))
    assert (reader.files["compressed"], reader.files["gone_unread"], reader.files["not_found"]) == (0, 0, 0)


@pytest.mark.parametrize("compressed", ["finish", "read"])
@pytest.mark.parametrize("pattern", ["app.log", "app.log*"])
def test_rotation_with_compress_beside_a_running_forwarder_repeats_nothing_and_says_nothing(
    tmp_path: Path, log: Path, compressed: str, pattern: str
) -> None:
    reader = Reader(tmp_path / pattern, compressed=compressed)
    append(log, numbered(0, 50))
    turns(reader, 2)
    with capture_logs() as lines:
        for turn in range(1, 6):
            rotate(log)
            append(log, numbered(turn * 50, turn * 50 + 50))
            turns(reader, 1 + turn)
            if turn == 3:
                reader.restart()
        turns(reader)
    assert reader.lines == expected((0, 300))
    assert [each["event"] for each in lines if each["log_level"] == "warning"] == []
    reader.restart()
    turns(reader)
    assert reader.lines == expected((0, 300))


@pytest.mark.parametrize("compressed", ["finish", "read"])
def test_delayed_compression_repeats_nothing(tmp_path: Path, log: Path, compressed: str) -> None:
    reader = Reader(log, compressed=compressed)
    for turn in range(5):
        append(log, numbered(turn * 50, turn * 50 + 50))
        turns(reader, 4)
        if (old := Path(f"{log}.1")).exists():
            pack(old).rename(f"{log}.{turn + 1}.gz")
        log.rename(f"{log}.1")
        if turn == 2:
            reader.restart()
        turns(reader, 4)
    reader.restart()
    turns(reader)
    assert reader.lines == expected((0, 250))
    assert reader.files["compressed"] == 0


@pytest.mark.parametrize("read", [0, 1, 40, 199])
def test_killed_at_any_point_of_the_rest_it_goes_on_there(log: Path, read: int) -> None:
    reader = Reader(log, block_bytes=1000, max_record_bytes=200)
    append(log, numbered(0, 100))
    reader.turn()
    append(log, numbered(100, 300))
    rotate(log)
    append(log, numbered(300, 310))
    for _ in range(40):  # killed over and over, each time with a block or two committed
        reader.restart()
        for _ in range(4):
            reader.now += 1
            reader.scan()
            while reader.follower.end_due(reader.now) <= reader.now:
                pass
        reader.read(2)
        reader.commit()
        reader.read(read)
    assert reader.lines == expected((0, 310))


@both_ways
def test_rotated_compressed_files_are_read_as_new_ones_with_read(log: Path, how: str) -> None:
    append(log, numbered(900, 990))
    rotate(log, how)  # from before the first scan: it counts as read
    append(log, numbered(0, 50))
    reader = Reader(log, compressed="read", block_bytes=1000, max_record_bytes=200)
    turns(reader, 3)
    for turn in range(1, 4):  # while nobody looks
        append(log, numbered(turn * 50 - 25, turn * 50 + 25) if turn > 1 else numbered(50, 75))
        rotate(log, how)
    append(log, numbered(175, 180))
    reader.restart()
    turns(reader, 30)
    reader.restart()
    turns(reader)
    assert reader.lines == expected((0, 180))


def test_configured_compressed_files_are_read_with_read_and_said_without(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(numbered(*((0, 50) if name == "a" else (50, 99)))))
    reader = Reader(tmp_path / "*.gz")
    with capture_logs() as lines:
        turns(reader)
    assert (reader.lines, len(events(lines, NOT_READ)), reader.files["compressed"]) == ([], 2, 2)
    assert reader.file_bytes["compressed"] == sum(path.stat().st_size for path in tmp_path.glob("*.gz"))
    reader.settings = Reader(tmp_path / "*.gz", compressed="read").settings
    for _ in range(2):
        reader.restart()
        turns(reader)
        assert sorted(reader.lines) == expected((0, 99))


def test_a_file_that_was_rotated_and_compressed_unseen_is_said(log: Path) -> None:
    reader = Reader(log)
    append(log, numbered(0, 50))
    reader.turn()
    rotate(log)
    append(log, numbered(50, 100))
    rotate(log)
    append(log, numbered(100, 110))
    reader.restart()
    with capture_logs() as lines:
        turns(reader)
    assert reader.lines == expected((0, 50), (100, 110))
    assert [each["path"] for each in lines if each["event"] == NOT_READ] == [f"{log}.1.gz"]


@pytest.mark.parametrize("name", ["app.log.1.bz2", "app.log.1.xz", "app.log-20260131.zst", "app.log.zip"])
def test_other_compressions_are_said_once(tmp_path: Path, log: Path, name: str) -> None:
    reader = Reader(tmp_path / "app.log*")
    append(log, numbered(0, 50))
    reader.turn()
    first = {".bz2": b"BZh91AY&SY", ".xz": b"\xfd7zXZ\0", ".zst": b"\x04\x22\x4d\x18", ".zip": b"PK\x03\x04"}
    (tmp_path / name).write_bytes(first[Path(name).suffix] + bytes(range(256)))
    with capture_logs() as lines:
        turns(reader)
        append(log, numbered(50, 60))
        turns(reader)
    assert len(events(lines, NOT_READ)) == 1
    assert reader.lines == expected((0, 60))


@both_ways
@pytest.mark.parametrize("compressed", ["finish", "read"])
def test_a_file_that_is_cut_off_is_said_and_read_when_it_is_whole(log: Path, how: str, compressed: str) -> None:
    reader = Reader(log, compressed=compressed)
    append(log, numbered(0, 200))
    reader.turn()
    append(log, numbered(200, 300))
    packed = rotate(log, how)
    whole = packed.read_bytes()
    append(log, numbered(300, 310))
    reader.restart()
    with capture_logs() as lines:
        for part in (1, 2):  # as it is written
            packed.write_bytes(whole[: len(whole) * part // 3])
            turns(reader, 2)
        assert events(lines, DAMAGED) == []
        turns(reader)
    assert (len(events(lines, DAMAGED)), reader.files["damaged"]) == (1, 1)
    assert reader.lines == expected((0, 200), (300, 310))
    packed.write_bytes(whole)
    turns(reader)
    assert reader.lines == expected((0, 200), (300, 310), (200, 300))


def test_a_compressed_file_that_was_followed_while_it_was_empty_is_not_read_as_lines(tmp_path: Path) -> None:
    packed = tmp_path / "app.log.2.gz"
    packed.touch()
    reader = Reader(tmp_path / "app.log*")
    reader.turn()
    whole = gzip.compress(numbered(0, 200))
    for part in (10, 100, len(whole)):
        packed.write_bytes(whole[:part])
        turns(reader, 2)
    assert reader.lines == []
    assert reader.files["compressed"] == 1


def test_a_bomb_is_said_and_not_read(log: Path) -> None:
    reader = Reader(log, compressed="read")
    append(log, numbered(0, 50))
    reader.turn()
    Path(f"{log}.1.gz").write_bytes(gzip.compress(bytes(70 << 20), 9))
    with capture_logs() as lines:
        turns(reader)
    assert events(lines, DAMAGED) == ["it decompresses to more than 1000 times its size"]
    assert reader.lines == expected((0, 50))


@pytest.mark.parametrize("compressed", ["finish", "read"])
def test_a_copy_beside_its_original_is_not_read_and_takes_over_when_that_is_gone(
    tmp_path: Path, log: Path, compressed: str
) -> None:
    reader = Reader(tmp_path / "app.log*", compressed=compressed)
    append(log, numbered(0, 50))
    reader.turn()
    packed = Path(f"{log}.1.gz")
    packed.write_bytes(gzip.compress(numbered(0, 50)))  # gzip -k
    turns(reader)
    log.unlink()
    turns(reader)
    reader.restart()
    turns(reader)
    assert reader.lines == expected((0, 50))
    assert len(reader.positions) == 1


def test_a_copy_of_an_emptied_file_that_was_compressed_at_once_is_finished(log: Path) -> None:
    reader = Reader(log)
    append(log, numbered(0, 100))
    reader.turn()
    append(log, numbered(100, 150))
    Path(f"{log}.1.gz").write_bytes(gzip.compress(log.read_bytes()))
    os.truncate(log, 0)
    append(log, numbered(150, 160))
    turns(reader)
    assert sorted(reader.lines) == expected((0, 160))


def test_a_file_that_was_decompressed_again_is_not_read_again(tmp_path: Path, log: Path) -> None:
    reader = Reader(tmp_path / "app.log*")
    append(log, numbered(0, 100))
    reader.turn()
    packed = rotate(log)
    reader.restart()
    turns(reader)
    packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()
    turns(reader)
    assert reader.lines == expected((0, 100))


def test_a_file_that_grows_by_members_is_read_on(tmp_path: Path) -> None:
    packed = tmp_path / "app.gz"
    reader = Reader(packed, compressed="read")
    for turn in range(4):
        append(packed, gzip.compress(numbered(turn * 50, turn * 50 + 50)))
        if turn == 2:
            reader.restart()
        turns(reader)
    assert reader.lines == expected((0, 200))


def test_the_last_record_needs_no_newline_and_zeros_are_skipped(tmp_path: Path) -> None:
    packed = tmp_path / "app.gz"
    packed.write_bytes(gzip.compress(numbered(0, 3) + bytes(5000) + numbered(3, 5) + b"last"))
    reader = Reader(packed, compressed="read")
    turns(reader)
    assert reader.lines == [*expected((0, 5)), b"last"]


def test_lines_that_are_joined_go_on_in_the_compressed_file(log: Path) -> None:
    reader = Reader(log, format="text", multiline=Multiline(start="^first"), max_record_bytes=4096)
    append(log, b"".join(b"first %d\n more\n" % each for each in range(100)))
    reader.turn()
    append(log, b" and more\nfirst 100\n more\n")
    rotate(log)
    append(log, b" still more\nfirst 101\n")
    reader.restart()
    turns(reader)
    records = [line for line in reader.lines if b"first 99" in line or b"first 100" in line]
    assert records == [rb'{"message":"first 99\n more\n and more"}', rb'{"message":"first 100\n more\n still more"}']


@pytest.mark.parametrize("compressed", ["finish", "read"])
@pytest.mark.parametrize("stopped", [False, True])
def test_what_a_writer_adds_to_a_file_that_is_being_compressed_makes_it_no_other_file(
    log: Path, compressed: str, stopped: bool
) -> None:
    reader = Reader(log, compressed=compressed)
    with log.open("ab", buffering=0) as writer:
        writer.write(numbered(0, 200))
        turns(reader, 3)
        moved = log.rename(f"{log}.1")
        packed = PACKS["gzip"](moved.read_bytes())
        writer.write(numbered(200, 220))  # gzip has read it already
        turns(reader, 2)
        Path(f"{log}.1.gz").write_bytes(packed)
        moved.unlink()
        if stopped:
            reader.restart()
        turns(reader)
    append(log, numbered(220, 230))
    turns(reader)
    reader.restart()
    turns(reader)
    assert reader.lines == expected((0, 230))
    assert reader.files["compressed"] == 0
