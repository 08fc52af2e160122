"""Rotation of every kind, with real files and a clock that jumps: every line once, in order."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.logfwd.sources.file.follow_harness import Reader, append, numbered


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "access.log"


def rotate(log: Path) -> None:
    """logrotate's way: .1 becomes .2 and so on, the live file becomes .1."""
    for index in range(9, 0, -1):
        if (old := log.with_name(f"{log.name}.{index}")).exists():
            old.rename(log.with_name(f"{log.name}.{index + 1}"))
    log.rename(log.with_name(f"{log.name}.1"))


def copy_and_truncate(log: Path, index: int = 1) -> None:
    shutil.copyfile(log, log.with_name(f"{log.name}.{index}"))
    os.truncate(log, 0)


def expected(*ranges: tuple[int, int]) -> list[bytes]:
    return [line for first, stop in ranges for line in numbered(first, stop).splitlines()]


PATTERNS = ("access.log", "access.log*")


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_renamed_file_is_still_read_while_its_writer_has_it_open(tmp_path: Path, log: Path, pattern: str) -> None:
    reader = Reader(tmp_path / pattern)
    with log.open("ab", buffering=0) as writer:
        writer.write(numbered(0, 10))
        reader.turn()
        rotate(log)
        writer.write(numbered(10, 20))
        reader.turn()
        writer.write(numbered(20, 30))
        log.touch()
        reader.turn()
        writer.write(numbered(30, 40))
        reader.turn()
    append(log, numbered(40, 50))
    reader.turn()
    assert reader.lines == expected((0, 50))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_three_rotations_between_two_scans_lose_nothing(tmp_path: Path, log: Path, pattern: str) -> None:
    reader = Reader(tmp_path / pattern, block_bytes=256, max_record_bytes=200)
    append(log, numbered(0, 10))
    reader.turn()
    append(log, numbered(10, 20))
    for start in (20, 30, 40):
        rotate(log)
        append(log, numbered(start, start + 10))
    reader.turn()
    assert reader.lines == expected((0, 50))
    for _ in range(10):
        assert reader.turn() == []


@pytest.mark.parametrize("pattern", PATTERNS)
def test_three_rotations_while_stopped_lose_nothing(tmp_path: Path, log: Path, pattern: str) -> None:
    reader = Reader(tmp_path / pattern, block_bytes=256, max_record_bytes=200)
    append(log, numbered(0, 10))
    reader.turn()
    append(log, numbered(10, 20))
    for start in (20, 30, 40):
        rotate(log)
        append(log, numbered(start, start + 10))
    reader.restart()
    reader.turn()
    assert reader.lines == expected((0, 50))


def test_rotated_files_from_before_the_first_start_are_left_alone(log: Path) -> None:
    for index in (1, 2):
        old = log.with_name(f"access.log.{index}")
        append(old, numbered(900, 910))
        os.utime(old, (1e9, 1e9))
    append(log, numbered(0, 10))
    reader = Reader(log)
    reader.turn()
    rotate(log)
    append(log, numbered(10, 20))
    reader.turn()
    reader.restart()
    reader.turn()
    assert reader.lines == expected((0, 20))


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("restarted", [False, True])
def test_copytruncate_reads_from_the_copy_what_was_not_read_before(
    tmp_path: Path, log: Path, pattern: str, restarted: bool
) -> None:
    reader = Reader(tmp_path / pattern)
    append(log, numbered(0, 50))
    reader.turn()
    append(log, numbered(50, 60))
    copy_and_truncate(log)
    append(log, numbered(60, 62))
    if restarted:
        reader.restart()
    reader.turn()
    append(log, numbered(62, 64))
    reader.turn()
    assert reader.lines == expected((0, 64))
    reader.restart()
    reader.turn()
    assert reader.lines == expected((0, 64))
    for _ in range(10):
        assert reader.turn() == []


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_copy_next_to_its_original_is_not_read_again(tmp_path: Path, log: Path, pattern: str) -> None:
    reader = Reader(tmp_path / pattern)
    append(log, numbered(0, 50))
    reader.turn()
    copy = log.with_name("access.log.1")
    copy.touch()
    reader.turn()
    append(copy, numbered(0, 20))
    reader.turn()
    append(copy, numbered(20, 50))
    append(log, numbered(50, 60))
    reader.turn()
    os.truncate(log, 0)
    append(log, numbered(60, 70))
    reader.turn()
    reader.restart()
    for _ in range(7):
        reader.turn()
    assert reader.lines == expected((0, 70))


@pytest.mark.parametrize("grown_to", [0, 5, 50, 51, 90])
def test_a_file_truncated_in_place_is_a_new_one_however_far_it_has_grown(log: Path, grown_to: int) -> None:
    reader = Reader(log)
    append(log, numbered(0, 50))
    reader.turn()
    os.truncate(log, 0)
    append(log, numbered(100, 100 + grown_to))
    reader.turn()
    assert reader.lines == expected((0, 50), (100, 100 + grown_to))


@pytest.mark.parametrize("grown_to", [0, 5, 50, 51, 90])
def test_a_file_truncated_while_stopped_is_a_new_one_however_far_it_has_grown(log: Path, grown_to: int) -> None:
    reader = Reader(log)
    append(log, numbered(0, 50))
    reader.turn()
    os.truncate(log, 0)
    append(log, numbered(100, 100 + grown_to))
    reader.restart()
    reader.turn()
    assert reader.lines == expected((0, 50), (100, 100 + grown_to))
    reader.restart()
    assert reader.turn() == []


@pytest.mark.parametrize("restarted", [False, True])
def test_a_file_deleted_and_recreated_is_read_from_its_start(log: Path, restarted: bool) -> None:
    reader = Reader(log)
    append(log, numbered(0, 10))
    reader.turn()
    log.unlink()
    append(log, numbered(10, 30))
    if restarted:
        reader.restart()
    reader.turn()
    for _ in range(8):
        reader.turn()
    assert reader.lines == expected((0, 30))
    assert reader.open_files == 1
    assert len(reader.positions) == 1 + restarted


def test_a_deleted_file_that_is_still_written_is_read_to_its_end_then_closed(log: Path) -> None:
    reader = Reader(log)
    with log.open("ab", buffering=0) as writer:
        writer.write(numbered(0, 10))
        reader.turn()
        log.unlink()
        for start in range(10, 60, 10):
            writer.write(numbered(start, start + 10))
            reader.turn(4.0)
        assert reader.open_files == 1
    reader.turn(5.0)
    reader.turn()
    assert reader.lines == expected((0, 60))
    assert reader.open_files == 0
    assert reader.positions == {} or reader.follower.forgotten() == list(reader.positions)


def test_a_deleted_file_is_held_until_its_lines_are_committed(log: Path) -> None:
    reader = Reader(log)
    append(log, numbered(0, 10))
    reader.scan()
    log.unlink()
    for _ in range(20):
        reader.now += 1
        reader.scan()
        reader.read()
    assert reader.open_files == 1
    reader.commit()
    reader.turn(10.0)
    assert (reader.lines, reader.open_files) == (expected((0, 10)), 0)


@pytest.mark.parametrize("size", [10, 11, 30])
def test_a_used_inode_with_other_content_is_a_new_file(log: Path, size: int) -> None:
    reader = Reader(log)
    append(log, numbered(0, 10))
    reader.turn()
    log.write_bytes(numbered(100, 100 + size))  # the same inode, as after delete and create while stopped
    reader.restart()
    reader.turn()
    assert reader.lines == expected((0, 10), (100, 100 + size))


def test_a_used_inode_under_another_name_is_a_new_file(tmp_path: Path) -> None:
    reader = Reader(tmp_path / "*.log")
    append(tmp_path / "a.log", numbered(0, 30))
    reader.turn()
    reader.restart()
    (tmp_path / "a.log").rename(tmp_path / "b.log")
    (tmp_path / "b.log").write_bytes(numbered(50, 90))
    reader.turn()
    assert reader.lines == expected((0, 30), (50, 90))


@pytest.mark.parametrize("kept_name", ["elsewhere", "access.log.1", "access.log-20240101", "access.log.old"])
def test_a_file_renamed_while_stopped_is_found_under_any_name(log: Path, kept_name: str) -> None:
    reader = Reader(log)
    append(log, numbered(0, 10))
    reader.turn()
    append(log, numbered(10, 20))
    log.rename(log.with_name(kept_name))
    append(log, numbered(20, 30))
    reader.restart()
    for _ in range(8):
        reader.turn()
    assert reader.lines == expected((0, 30))


def steps_of_a_rotation(log: Path) -> Iterator[None]:
    append(log, numbered(0, 30))
    yield
    append(log, numbered(30, 40) + b"half of ")
    yield
    log.rename(log.with_name("access.log.1"))
    yield
    append(log.with_name("access.log.1"), b"a line\n" + numbered(40, 50))
    yield
    log.touch()
    yield
    append(log, numbered(50, 60))
    yield
    log.with_name("access.log.1").rename(log.with_name("access.log.2"))
    yield
    log.rename(log.with_name("access.log.1"))
    yield
    append(log, numbered(60, 70))
    yield


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("read_between", [False, True])
@pytest.mark.parametrize("stop", range(9))
def test_a_restart_at_any_point_of_a_rotation_changes_nothing(
    tmp_path: Path, log: Path, stop: int, read_between: bool, pattern: str
) -> None:
    reader = Reader(tmp_path / pattern, block_bytes=256, max_record_bytes=200)
    for step, _ in enumerate(steps_of_a_rotation(log)):
        if step == 0 or read_between:
            reader.turn(0.1)
        if step == stop:
            reader.scan()
            reader.read(2)
            reader.restart()
    reader.turn(0.1)
    assert reader.lines == [*expected((0, 40)), b"half of a line", *expected((40, 70))]
    reader.restart()
    for _ in range(8):
        assert reader.turn() == []


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_unfinished_last_line_of_a_rotated_file_becomes_a_record(tmp_path: Path, log: Path, pattern: str) -> None:
    reader = Reader(tmp_path / pattern)
    append(log, numbered(0, 2) + b"unfinished")
    reader.turn()
    rotate(log)
    append(log, numbered(2, 4))
    assert reader.turn() == expected((2, 4))
    reader.turn(5.0)
    assert reader.turn() == [b"unfinished"] or reader.lines[-1] == b"unfinished"
    last = reader.blocks[-1]
    assert (last.data, last.end - last.start) == (b"unfinished\n", len(b"unfinished"))
    reader.restart()
    for _ in range(8):
        assert reader.turn() == []


def test_rotated_files_are_read_oldest_first_at_a_first_start(tmp_path: Path, log: Path) -> None:
    for age, start in enumerate((40, 30, 20, 10, 0)):
        path = log if not age else log.with_name(f"access.log.{age}")
        append(path, numbered(start, start + 10))
        os.utime(path, (2e9, 2e9))
    reader = Reader(tmp_path / "access.log*", block_bytes=256, max_record_bytes=200)
    reader.turn()
    assert reader.lines == expected((0, 50))


def test_a_rotated_file_that_is_still_written_to_is_not_finished(tmp_path: Path, log: Path) -> None:
    reader = Reader(log)
    parts = [b"%d half" % number + b" line\n" for number in range(10)]
    with log.open("ab", buffering=0) as writer:
        writer.write(parts[0][:6])
        reader.turn()
        log.rename(tmp_path / "access.log.1")
        for number in range(1, 10):  # longer than rotated_wait, with an unfinished line at every read
            writer.write(parts[number - 1][6:] + parts[number][:6])
            reader.turn()
        writer.write(parts[9][6:])
        reader.turn()
    assert reader.lines == [part.strip() for part in parts]


@pytest.mark.parametrize("age_seconds", [-7200, 2, 7200])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_rotated_file_that_appears_later_is_followed_whatever_its_time(
    tmp_path: Path, log: Path, age_seconds: float, restarted: bool
) -> None:
    reader = Reader(log)
    append(log, numbered(0, 10))
    reader.turn()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    append(elsewhere / "access.log.1", numbered(10, 20))
    os.utime(elsewhere / "access.log.1", (time.time() - age_seconds,) * 2)
    reader.turn(20)
    if restarted:
        reader.restart()
    (elsewhere / "access.log.1").rename(tmp_path / "access.log.1")
    reader.turn()
    assert reader.lines == expected((0, 20))


def test_a_file_with_another_head_is_new_even_if_the_end_before_the_position_is_equal(log: Path) -> None:
    reader = Reader(log)
    append(log, numbered(0, 100))
    reader.turn()
    changed = b"x" * 60 + b"\n" + numbered(1, 100)
    log.write_bytes(changed)
    reader.restart()
    reader.turn()
    assert reader.lines == [*expected((0, 100)), *changed.splitlines()]


def test_a_short_equal_beginning_does_not_make_a_file_a_copy(tmp_path: Path, log: Path) -> None:
    reader = Reader(tmp_path / "access.log*")
    append(log, numbered(0, 5))
    reader.turn()
    os.truncate(log, 0)
    append(tmp_path / "access.log.1", numbered(0, 3))
    reader.turn()
    assert reader.lines == expected((0, 5), (0, 3))


def test_of_two_positions_that_fit_a_file_the_later_one_counts(log: Path) -> None:
    reader = Reader(log)
    append(log, numbered(0, 10))
    reader.turn()
    ((key, earlier),) = reader.positions.items()
    append(log, numbered(10, 20))
    reader.turn()
    later = reader.positions[key]
    for first, second in ((earlier, later), (later, earlier)):
        reader.positions = {"first": first, "second": second}
        reader.restart()
        assert reader.turn() == []


def test_a_symbolic_link_with_a_rotated_name_is_not_read(tmp_path: Path, log: Path) -> None:
    reader = Reader(log)
    append(log, numbered(0, 10))
    reader.turn()
    other = tmp_path / "elsewhere"
    append(other, numbered(10, 20))
    (tmp_path / "access.log.1").symlink_to(other)
    (tmp_path / "access.log.2").symlink_to(log)
    reader.turn()
    reader.restart()
    reader.turn()
    assert reader.lines == expected((0, 10))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_short_copy_that_was_seen_next_to_its_whole_original_is_not_read_again(
    tmp_path: Path, log: Path, pattern: str
) -> None:
    reader = Reader(tmp_path / pattern)
    append(log, numbered(0, 8))
    reader.turn()
    shutil.copy(log, tmp_path / "access.log.1")
    append(log, numbered(8, 10))
    reader.turn()
    os.truncate(log, 0)
    append(log, numbered(10, 12))
    os.utime(log, (time.time() + 1,) * 2)  # clearly later than the copy
    reader.turn()
    reader.restart()
    for _ in range(8):
        reader.turn()
    assert reader.lines == expected((0, 12))
