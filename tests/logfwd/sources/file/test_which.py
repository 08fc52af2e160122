"""Which file is which, beyond inodes: copies and restored files under any name, edits, what counts as read, ages."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from logfwd.sources.file import identity
from logfwd.sources.position import Mark
from tests.logfwd.sources.file.follow_harness import Reader, append, numbered

DAYS = 86_400.0


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "app.log"


def expected(*ranges: tuple[int, int]) -> list[bytes]:
    return [line for first, stop in ranges for line in numbered(first, stop).splitlines()]


def settled(reader: Reader) -> None:
    for _ in range(8):
        reader.turn()


def said(logs: list[MutableMapping[str, Any]], event: str) -> list[MutableMapping[str, Any]]:
    return [each for each in logs if each["event"] == event]


COPIES = ("app.1.log", "app-2026-01-01.log", "app.log-20260101.bak", "old-app.log", "app.log.1", "old/app.log.1")


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize("pattern", ["app.log", "*"])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_copy_under_any_name_takes_over_the_position_of_its_emptied_original(
    tmp_path: Path, log: Path, name: str, pattern: str, restarted: bool
) -> None:
    (tmp_path / "old").mkdir()
    reader = Reader(tmp_path / pattern, rotated=(str(tmp_path / "old" / "*"),))
    append(log, numbered(0, 100))
    reader.turn()
    append(log, numbered(100, 110))
    shutil.copyfile(log, tmp_path / name)
    os.truncate(log, 0)
    append(log, numbered(110, 120))
    if restarted:
        reader.restart()
    settled(reader)
    assert sorted(reader.lines) == expected((0, 120))
    reader.restart()
    settled(reader)
    assert len(reader.lines) == 120


@pytest.mark.parametrize("regrown", [3, 300])
def test_a_copy_seen_beside_its_whole_original_waits_and_is_read_if_nothing_is_emptied(
    tmp_path: Path, log: Path, regrown: int
) -> None:
    reader = Reader(tmp_path / "*.log")
    append(log, numbered(0, 100))
    reader.turn()
    for name in ("copy.log", "other.log"):
        shutil.copyfile(log, tmp_path / name)
        reader.turn()
        assert len(reader.lines) == 100
        if name == "copy.log":
            log.write_bytes(numbered(200, 200 + regrown))
            settled(reader)
            assert sorted(reader.lines) == expected((0, 100), (200, 200 + regrown))
            shutil.copyfile(tmp_path / "copy.log", log)
            reader = Reader(tmp_path / "[ao]*.log")
            reader.turn()
    with capture_logs() as logs:
        settled(reader)
    assert said(logs, "file read again") == [] or len(reader.lines) == 200


def move_elsewhere(log: Path, there: Path) -> None:
    """To another file system and back, or from a backup: the same content under another inode."""
    shutil.copyfile(log, there)
    log.rename(log.parent.parent / f"{log.parent.name}.original")
    there.rename(log)


def rename_copy(log: Path, there: Path) -> None:
    shutil.copyfile(log, there)
    log.rename(log.parent.parent / f"{log.parent.name}.original")
    there.rename(log.with_name("moved.log"))


@pytest.mark.parametrize("move", [move_elsewhere, rename_copy])
@pytest.mark.parametrize("more", [0, 5])
def test_a_file_that_returns_under_another_inode_goes_on_at_its_position(
    tmp_path: Path, log: Path, move: Callable[[Path, Path], None], more: int
) -> None:
    reader = Reader(tmp_path / "*.log")
    append(log, numbered(0, 100))
    reader.turn()
    reader.follower.close()
    append(log, numbered(100, 100 + more))
    move(log, tmp_path / "there")
    reader.restart()
    with capture_logs() as logs:
        settled(reader)
    assert reader.lines == expected((0, 100 + more))
    assert [each["read_bytes"] for each in said(logs, "file recognised by its content")] == [6100]
    assert reader.files == {"recognised": 1}


def test_a_restored_directory_of_files_goes_on_at_their_positions(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    reader = Reader(folder / "*.log")
    for number in range(30):
        append(folder / f"{number}.log", numbered(number * 100, number * 100 + 20 + number))
    reader.turn()
    before = len(reader.lines)
    reader.follower.close()
    shutil.copytree(folder, tmp_path / "restored")
    folder.rename(tmp_path / "original")
    (tmp_path / "restored").rename(folder)
    for number in range(30):
        append(folder / f"{number}.log", b"more %d\n" % number)
    reader.restart()
    settled(reader)
    assert len(reader.lines) == before + 30


def edit(log: Path, at: int) -> None:
    with log.open("r+b") as file:
        file.seek(at)
        file.write(b"X")


@pytest.mark.parametrize("how", ["running", "closed", "restarted"])
@pytest.mark.parametrize("back", [5, 900])
def test_a_file_edited_before_its_position_goes_on_there_and_is_counted(
    tmp_path: Path, log: Path, how: str, back: int
) -> None:
    reader = Reader(tmp_path / "*.log", max_open_files=1)
    append(log, numbered(0, 100))
    reader.turn()
    if how == "closed":
        append(tmp_path / "b.log", b"b\n")
        reader.turn()
    edit(log, 6100 - back)
    append(log, numbered(100, 105))
    if how == "restarted":
        reader.restart()
    with capture_logs() as logs:
        settled(reader)
    assert [line for line in reader.lines if line != b"b"] == expected((0, 105))
    assert reader.files == {"edited": 1}
    assert [each["read_bytes"] for each in said(logs, "file changed before its position")] == [6100]


@pytest.mark.parametrize("restarted", [False, True])
def test_a_file_emptied_and_grown_again_behind_an_equal_head_is_read_from_its_start(log: Path, restarted: bool) -> None:
    """As W3C logs and logs with a long banner do between two looks."""
    banner = numbered(900, 920)
    reader = Reader(log)
    append(log, banner + numbered(0, 100))
    reader.turn()
    log.write_bytes(banner + numbered(300, 500))
    if restarted:
        reader.restart()
    settled(reader)
    assert reader.lines == expected((900, 920), (0, 100), (900, 920), (300, 500))


def test_files_that_begin_alike_are_told_apart_behind_header_bytes(tmp_path: Path) -> None:
    banner = numbered(900, 920)
    reader = Reader(tmp_path / "*.log", header_bytes=len(banner))
    append(tmp_path / "a.log", banner + numbered(0, 100))
    reader.turn()
    append(tmp_path / "b.log", banner + numbered(200, 210))
    reader.turn()
    assert len(reader.lines) == 150
    os.truncate(tmp_path / "a.log", 0)
    append(tmp_path / "c.log", banner + numbered(300, 310))
    settled(reader)
    assert len(reader.lines) == 180


ROTATED = (
    "app.log.1",
    "app.log-20260101",
    "app-2026-01-01T12-00-00.000.log",
    "app-20260101.log",
    "app.1.log",
    "old/app.log.7",
)


@pytest.mark.parametrize("name", ROTATED)
@pytest.mark.parametrize("hours", [-2, 2])
def test_a_file_made_and_rotated_unseen_is_read_whatever_its_times(
    tmp_path: Path, log: Path, name: str, hours: float
) -> None:
    (tmp_path / "old").mkdir()
    rotated = (str(tmp_path / "app.?.log"), str(tmp_path / "old" / "*"))
    for old in ROTATED:
        append(tmp_path / f"{old}0", numbered(900, 950))
    reader = Reader(log, rotated=rotated)
    append(log, numbered(0, 10))
    reader.turn()
    reader.follower.close()
    log.rename(tmp_path / "moved")
    append(log, numbered(10, 20))
    os.utime(log, (time.time() + hours * 3600,) * 2)
    log.rename(tmp_path / name)
    append(log, numbered(20, 30))
    reader.restart()
    settled(reader)
    assert reader.lines == expected((0, 30))
    reader.restart()
    settled(reader)
    assert reader.lines == expected((0, 30))


def test_rotated_files_that_a_new_pattern_brings_count_as_read(tmp_path: Path, log: Path) -> None:
    append(tmp_path / "other.log.1", numbered(900, 950))
    append(log, numbered(0, 10))
    reader = Reader(log)
    reader.turn()
    reader.settings = type(reader.settings)(paths=(str(log), str(tmp_path / "other.log")))
    reader.restart()
    append(tmp_path / "other.log", numbered(10, 20))
    settled(reader)
    append(tmp_path / "other.log.1", numbered(20, 30))  # its writer has not let go of it yet
    settled(reader)
    assert sorted(reader.lines) == expected((0, 30))


def test_end_is_judged_at_the_first_scan_even_if_it_found_nothing(tmp_path: Path, log: Path) -> None:
    reader = Reader(tmp_path / "*.log", start_at="end")
    reader.turn()
    reader.restart()
    append(log, numbered(0, 10))
    reader.turn()
    assert reader.lines == expected((0, 10))


def test_a_file_that_cannot_be_read_at_the_first_scan_is_read_from_its_end(
    tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(log, numbered(0, 10) + b"half ")
    reader = Reader(tmp_path / "*.log", start_at="end")
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        reader.turn()
    reader.restart()
    append(log, b"a line\n" + numbered(10, 20))
    settled(reader)
    assert reader.lines == [b"half a line", *expected((10, 20))]


def refuse(*_: object) -> int:
    raise PermissionError(13, "Permission denied")


def test_what_was_found_at_the_end_is_stored_before_any_line_is_read(tmp_path: Path) -> None:
    """Else a crash in between would leave positions that look like those of a later start."""
    for name in ("a", "b"):
        append(tmp_path / f"{name}.log", numbered(0, 10))
    reader = Reader(tmp_path / "*.log", start_at="end")
    reader.scan()
    append(tmp_path / "a.log", numbered(10, 20))
    (first, *_) = reader.read()
    assert (first.data, len(first.positions or ())) == (b"", 3)


def test_old_files_are_ignored_until_they_are_written_to(tmp_path: Path, log: Path) -> None:
    append(log, numbered(0, 10))
    os.utime(log, (time.time() - 3600,) * 2)
    append(tmp_path / "b.log", numbered(10, 20))
    reader = Reader(tmp_path / "*.log", ignore_older_seconds=1800)
    reader.turn()
    append(log, numbered(20, 30))
    reader.turn()
    assert reader.lines == expected((10, 30))


@pytest.mark.parametrize(("days", "again"), [(29, 0), (31, 100)])
def test_a_position_is_kept_for_forget_after_over_restarts(tmp_path: Path, log: Path, days: int, again: int) -> None:
    reader = Reader(log)
    append(log, numbered(0, 100))
    reader.turn()
    away = tmp_path.parent / f"{tmp_path.name}.away"
    log.rename(away)
    for _ in range(days):
        reader.turn()
        reader.turn(DAYS)
        reader.restart()
    away.rename(log)
    settled(reader)
    assert len(reader.lines) == 100 + again


def test_time_in_which_nobody_could_look_does_not_count(
    tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    reader = Reader(folder / "*.log")
    append(folder / "a.log", numbered(0, 100))
    reader.turn()
    away = tmp_path / "away"
    folder.rename(away)
    folder.symlink_to(folder)  # a loop: ELOOP, as EIO or ESTALE of a file system that is away
    for _ in range(20):
        reader.turn(5 * DAYS)
    folder.unlink()
    away.rename(folder)
    settled(reader)
    assert len(reader.lines) == 100


def test_a_file_rotated_to_an_unknown_place_is_said_with_what_was_read(tmp_path: Path, log: Path) -> None:
    reader = Reader(log)
    append(log, numbered(0, 10))
    reader.turn()
    reader.follower.close()
    append(log, numbered(10, 20))
    log.rename(tmp_path.parent / f"{tmp_path.name}.old")
    append(log, numbered(20, 30))
    with capture_logs() as logs:
        reader.restart()
        settled(reader)
        settled(reader)
    (line,) = said(logs, "rotated file not found")
    assert (line["path"], line["read_bytes"]) == (str(log), 610)
    assert reader.files == {"not_found": 1}


def test_marks_of_earlier_versions_still_fit(tmp_path: Path, log: Path) -> None:
    reader = Reader(log)
    append(tmp_path / "app.log.1", numbered(900, 950))
    os.utime(tmp_path / "app.log.1", (time.time() - 1000,) * 2)
    append(log, numbered(0, 100))
    reader.turn()
    ((key, mark),) = ((key, mark) for key, mark in reader.positions.items() if mark.offset == 6100)
    detail = msgspec.msgpack.encode(msgspec.msgpack.decode(mark.detail)[:8])
    reader.positions = {key: Mark(mark.offset, mark.tail_bytes, mark.tail_hash, detail)}
    reader.scans = {}
    append(log, numbered(100, 110))
    log.rename(tmp_path / "app.log.2")
    append(tmp_path / "app.log.3", numbered(110, 120))
    reader.restart()
    settled(reader)
    assert reader.lines == expected((0, 120))


@pytest.mark.parametrize("handles", [True, False])
@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("header_bytes", [500, 1100, 5000])
@pytest.mark.parametrize("count", [5, 100, 999])
def test_a_file_emptied_and_written_anew_behind_the_same_header_is_no_copy_of_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handles: bool, restarted: bool, header_bytes: int, count: int
) -> None:
    if not handles:
        monkeypatch.setattr(identity, "handle_of", lambda _: b"")
    log = tmp_path / "a.log"
    header, reader = b"#" * (header_bytes - 1) + b"\n", Reader(log)
    append(log, header + numbered(0, 1000))
    reader.turn()
    log.write_bytes(header + numbered(2000, 2000 + count))
    if restarted:
        reader.restart()
    for _ in range(8):
        reader.turn()
    lines = [line for line in reader.lines if not line.startswith(b"#")]
    assert lines == numbered(0, 1000).splitlines() + numbered(2000, 2000 + count).splitlines()
