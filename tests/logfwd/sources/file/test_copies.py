"""Several copies of one emptied file, edited ones, and emptied files that begin with a hole."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from logfwd.sources.file import identity
from tests.logfwd.sources.file.follow_harness import Reader, append, edit_near_end, numbered
from tests.logfwd.sources.file.test_used_inodes import Inodes


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "a.log"


@pytest.mark.parametrize("read_before", [50, 150])
@pytest.mark.parametrize("is_up", [True, False])
@pytest.mark.parametrize("backup", ["a.log.1", "a.log.bak"])
def test_of_several_copies_the_largest_takes_the_position_and_the_others_are_not_read(
    log: Path, read_before: int, is_up: bool, backup: str
) -> None:
    append(log, numbered(0, read_before))
    reader = Reader(log)
    reader.turn()
    append(log, numbered(read_before, 160))
    shutil.copyfile(log, log.with_name(backup))
    append(log, numbered(160, 200))
    shutil.copyfile(log, log.with_name("a.log.2"))
    os.truncate(log, 0)
    append(log, numbered(200, 210))
    if not is_up:
        reader.restart()
    for _ in range(10):
        reader.turn(2)
    reader.restart()
    reader.turn()
    assert reader.lines == numbered(0, 210).splitlines()


def test_a_file_edited_before_it_was_copied_and_emptied_goes_on_in_its_copy(log: Path) -> None:
    append(log, numbered(0, 200))
    reader = Reader(log)
    reader.turn()
    edit_near_end(log)
    append(log, numbered(200, 210))
    shutil.copyfile(log, log.with_name("a.log.1"))
    os.truncate(log, 0)
    append(log, numbered(210, 220))
    reader.turn()
    reader.turn()
    assert reader.lines == numbered(0, 220).splitlines()
    assert reader.files["edited"] == 1


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_a_writer_that_keeps_its_offset_leaves_holes_that_are_no_evidence(log: Path, rounds: int) -> None:
    """Zeros are equal in all files: an emptied one that begins with a hole is not an edited one."""
    reader = Reader(log)
    reader.turn()
    number, end = 0, 0

    def write(count: int) -> None:
        nonlocal number, end
        with log.open("r+b" if log.exists() else "wb") as file:
            file.seek(end)
            file.write(numbered(number, number + count))
            end = file.tell()
        number += count

    for turn in range(rounds):
        write(200)
        reader.turn()
        write(50)  # not read before it is copied
        shutil.copyfile(log, log.with_name(f"a.log.{turn + 1}"))
        os.truncate(log, 0)
    write(200)
    reader.turn()
    reader.turn()
    assert reader.lines == numbered(0, number).splitlines()


def test_a_file_that_begins_with_a_hole_is_known_to_be_edited(log: Path) -> None:
    log.touch()
    os.truncate(log, 4_000_000)
    append(log, numbered(0, 200))
    reader = Reader(log)
    reader.turn()
    edit_near_end(log)
    append(log, numbered(200, 210))
    reader.turn()
    assert reader.lines == numbered(0, 210).splitlines()
    assert reader.files["edited"] == 1


@pytest.mark.parametrize("is_renamed", [True, False])
def test_what_a_file_had_before_it_was_emptied_comes_first_though_nothing_of_it_was_read(
    log: Path, is_renamed: bool
) -> None:
    reader = Reader(log)
    reader.turn()
    append(log, numbered(0, 20))
    reader.scan()
    if is_renamed:
        log.rename(log.with_name("a.log.1"))
    else:
        shutil.copyfile(log, log.with_name("a.log.1"))
        os.truncate(log, 0)
    append(log, numbered(20, 30))
    if is_renamed:
        log.rename(log.with_name("a.log.2"))
        append(log, numbered(30, 40))
    reader.turn()
    reader.turn()
    assert reader.lines == numbered(0, 40 if is_renamed else 30).splitlines()


def test_a_file_that_was_away_for_long_and_was_emptied_meanwhile_goes_on_in_its_copy(tmp_path: Path) -> None:
    folder, away = tmp_path / "logs", tmp_path / "away"
    folder.mkdir()
    append(folder / "a.log", numbered(0, 200))
    reader = Reader(folder / "a.log")
    reader.turn()
    append(folder / "a.log", numbered(200, 210))
    shutil.copyfile(folder / "a.log", folder / "a.log.1")
    os.truncate(folder / "a.log", 0)
    append(folder / "a.log", numbered(210, 220))
    folder.rename(away)
    folder.mkdir()
    reader.restart()
    reader.turn()
    folder.rmdir()
    away.rename(folder)
    for _ in range(3):
        reader.turn(100)
    assert reader.lines == numbered(0, 220).splitlines()


def test_what_is_younger_than_a_copy_waits_for_it_when_its_original_is_found_emptied_late(log: Path) -> None:
    append(log, numbered(0, 100))
    reader = Reader(log, max_open_files=1)
    reader.turn()
    shutil.copyfile(log, log.with_name("a.log.1"))
    append(log, numbered(100, 120))
    for index, (first, stop) in enumerate([(120, 230), (230, 400)], 2):
        shutil.copyfile(log, log.with_name(f"a.log.{index}"))
        os.truncate(log, 0)
        append(log, numbered(first, stop))
    reader.scan()
    reader.read()
    reader.commit()
    for _ in range(3):
        reader.turn()
    assert reader.lines == numbered(0, 400).splitlines()


@pytest.mark.parametrize("backup_first", [True, False])
def test_of_equally_large_copies_one_with_a_rotated_name_takes_the_position(log: Path, backup_first: bool) -> None:
    """The other one was made before an edit, so nothing but the position of its original would tell what it is."""
    append(log, numbered(0, 200))
    reader = Reader(log)
    reader.turn()
    backup, rotated = log.with_name("a.log.bak" if backup_first else "z.bak"), log.with_name("a.log.1")
    shutil.copyfile(log, backup)
    reader.turn()
    edit_near_end(log)
    shutil.copyfile(log, rotated)
    os.truncate(log, 0)
    append(log, numbered(200, 210))
    for _ in range(3):
        reader.turn(2)
    assert reader.lines == numbered(0, 210).splitlines()
    assert not reader.file_bytes["read_again"]


def test_what_was_written_and_emptied_behind_a_copy_before_anybody_looked_leaves_no_trace(log: Path) -> None:
    append(log, numbered(0, 100))
    reader = Reader(log)
    reader.turn()
    shutil.copyfile(log, log.with_name("a.log.1"))
    os.truncate(log, 0)
    append(log, numbered(100, 200))
    os.truncate(log, 0)
    reader.restart()
    for _ in range(8):
        reader.turn(2)
    append(log, numbered(200, 210))
    reader.turn()
    assert reader.lines == numbered(0, 100).splitlines() + numbered(200, 210).splitlines()
    assert not reader.files


@pytest.mark.parametrize("before", ["unread", "behind another", "begun"])
@pytest.mark.parametrize("new_lines", [5, 50, 200])
@pytest.mark.parametrize("is_scanned", [True, False])
@pytest.mark.parametrize("is_up", [True, False])
def test_a_file_copied_and_emptied_before_it_was_read_is_read_after_its_copy(
    log: Path, before: str, new_lines: int, is_scanned: bool, is_up: bool
) -> None:
    reader = Reader(log, block_bytes=610)
    reader.turn()
    append(log, numbered(0, 70))
    if before == "behind another":
        reader.turn()
        append(log, numbered(70, 80))
        log.rename(log.with_name("a.log.2"))
        append(log, numbered(80, 100))
    else:
        append(log, numbered(70, 100))
    reader.scan()
    reader.read(0 if before == "unread" else 1)
    reader.commit()
    shutil.copyfile(log, log.with_name("a.log.1"))
    os.truncate(log, 0)
    append(log, numbered(100, 100 + new_lines))
    if not is_up:
        reader.restart()
    if is_scanned:
        reader.scan()
    reader.read(3)
    reader.commit()
    for _ in range(5):
        reader.turn(2)
    assert reader.lines == numbered(0, 100 + new_lines).splitlines()


@pytest.mark.parametrize("hole", [0, 20_000])
def test_a_writer_that_keeps_its_offset_when_nothing_was_read_yet_goes_on_behind_the_copy(log: Path, hole: int) -> None:
    reader = Reader(log)
    reader.turn()
    append(log, b"")
    os.truncate(log, hole)
    append(log, numbered(0, 30))
    reader.scan()
    end = log.stat().st_size
    shutil.copyfile(log, log.with_name("a.log.1"))
    os.truncate(log, 0)
    os.truncate(log, end)
    append(log, numbered(30, 40))
    reader.read()
    reader.commit()
    for _ in range(3):
        reader.turn(2)
    assert reader.lines == numbered(0, 40).splitlines()


def test_what_comes_after_a_file_that_was_written_anew_waits_until_that_is_found_again(log: Path) -> None:
    append(log, numbered(0, 10))
    reader = Reader(log)
    reader.turn()
    with log.open("r+b") as file:
        file.write(numbered(200, 260))  # with so little before the position, an edit counts as rewritten
    log.rename(log.with_name("a.log.1"))
    append(log, numbered(300, 310))
    for _ in range(3):
        reader.turn(2)
    assert (
        reader.lines == numbered(0, 10).splitlines() + numbered(200, 260).splitlines() + numbered(300, 310).splitlines()
    )


def test_the_copy_of_an_emptied_file_takes_its_position_though_the_file_is_deleted_and_its_inode_used_again(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inodes = Inodes()
    monkeypatch.setattr(identity, "handle_of", inodes.handle_of)
    reader = Reader(log, max_open_files=1)
    append(log, numbered(0, 20))
    reader.turn()
    append(log, numbered(20, 25))
    shutil.copyfile(log, log.with_name("a.log.1"))
    os.truncate(log, 0)
    reader.follower.poll(reader.now)
    inodes.use_again(log, log, numbered(30, 40))
    for _ in range(4):
        reader.turn(2)
    assert sorted(reader.lines) == numbered(0, 25).splitlines() + numbered(30, 40).splitlines()
    assert not reader.files


@pytest.mark.parametrize("is_held", [True, False])
def test_a_new_file_that_begins_like_the_emptied_one_whose_name_it_has_is_read(
    log: Path, monkeypatch: pytest.MonkeyPatch, is_held: bool
) -> None:
    inodes = Inodes()
    monkeypatch.setattr(identity, "handle_of", inodes.handle_of)
    append(log, numbered(0, 300))
    reader = Reader(log)
    reader.turn()
    copy = log.with_name("a.log.1")
    shutil.copyfile(log, copy)
    if is_held:
        reader.turn(0.1)
    os.truncate(log, 0)
    reader.follower.poll(reader.now)
    log.unlink()
    inodes.use_again(copy, log, numbered(0, 2) + numbered(600, 610))
    for _ in range(5):
        reader.turn(2)
    assert set(reader.lines) == set(numbered(0, 300).splitlines()) | set(numbered(600, 610).splitlines())
