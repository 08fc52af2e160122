"""Files that were emptied when nothing of them was read yet, or found to be only when what follows them was looked at.

Each of these came out of a history of test_model.py or test_writer_model.py.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from logfwd.sources.file.follow import Follower
from tests.logfwd.sources.file.follow_harness import Reader, append, numbered
from tests.logfwd.sources.file.test_which import expected, settled

LINE = len(numbered(0, 1))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "a.log"


def found_and_unread(log: Path, lines: int) -> Reader:
    """A reader that has seen these lines, and read none of them."""
    reader = Reader(log)
    reader.turn()
    append(log, numbered(0, lines))
    reader.scan()
    return reader


@pytest.mark.parametrize("begun_again", [0, 2, 60])
def test_what_was_seen_of_a_file_that_was_emptied_before_it_was_read_is_said_to_be_lost(
    log: Path, begun_again: int
) -> None:
    reader = found_and_unread(log, 30)
    log.write_bytes(numbered(100, 100 + begun_again))
    settled(reader)
    assert reader.lines == expected((100, 100 + begun_again))
    assert (reader.files, reader.file_bytes) == ({"gone_unread": 1}, {"gone_unread": 30 * LINE})


@pytest.mark.parametrize("copy", ["a.log.1", "a.log.bak", "saved"])
def test_nothing_is_lost_if_there_is_a_copy_of_it_whatever_its_name(log: Path, copy: str) -> None:
    reader = found_and_unread(log, 30)
    shutil.copyfile(log, log.with_name(copy))
    log.write_bytes(numbered(100, 110))
    settled(reader)
    assert reader.lines == expected((0, 30), (100, 110))
    assert reader.files == {}


@pytest.mark.parametrize("keeps_offset", [False, True])
def test_a_file_that_was_empty_when_it_was_found_is_read_after_its_copy(log: Path, keeps_offset: bool) -> None:
    reader = Reader(log)
    log.touch()
    reader.turn()
    append(log, numbered(0, 20))
    reader.scan()
    shutil.copyfile(log, log.with_name("a.log.1"))
    os.truncate(log, 0)
    if keeps_offset:
        os.truncate(log, 20 * LINE)
    append(log, numbered(20, 21))
    reader.read()  # before anybody looks at its size
    settled(reader)
    assert reader.lines == expected((0, 21))
    assert reader.files == {}


def test_a_file_that_was_empty_when_it_was_found_is_read_after_a_copy_that_nobody_has_listed(log: Path) -> None:
    reader = Reader(log)
    reader.turn()
    log.touch()
    reader.scan()
    append(log, numbered(0, 5))
    shutil.copyfile(log, log.with_name("a.log.1"))
    log.write_bytes(numbered(5, 30))
    for _ in range(3):  # however often it is written to until then
        reader.follower.poll(reader.now)
        reader.read()
    settled(reader)
    assert reader.lines == expected((0, 30))
    assert reader.files == {}


def test_what_follows_a_file_that_was_emptied_and_written_anew_waits_for_its_new_content(log: Path) -> None:
    reader = Reader(log)
    append(log, numbered(0, 100))
    reader.turn()
    os.truncate(log, 0)
    os.truncate(log, 100 * LINE)  # by a writer that keeps its offset: what is written shows at the next read only
    append(log, numbered(100, 105))
    log.rename(log.with_name("a.log.2"))
    append(log.with_name("a.log.1"), numbered(105, 110))
    append(log, numbered(110, 112))
    reader.turn()
    assert reader.lines == expected((0, 112))


@pytest.mark.parametrize("max_open_files", [1, 2, 3])
def test_a_file_that_was_empty_waits_for_a_copy_of_what_it_had_that_cannot_be_opened_yet(
    log: Path, max_open_files: int
) -> None:
    append(log, b"")
    reader = Reader(log, max_open_files=max_open_files)
    reader.turn()
    append(log.with_name("a.log.3"), numbered(0, 10))  # made and rotated before anybody looked
    append(log, numbered(10, 20))
    shutil.copyfile(log, log.with_name("a.log.2"))
    log.write_bytes(numbered(20, 30))
    log.rename(log.with_name("a.log.1"))
    append(log, numbered(30, 40))
    settled(reader)
    assert reader.lines == expected((0, 40))


def test_a_file_that_cannot_be_read_keeps_no_copy_from_the_position_of_an_emptied_one(log: Path) -> None:
    log.with_name("memory.log").symlink_to("/proc/self/mem")  # reading it fails: EIO
    reader = Reader(log.with_name("*.log"))
    append(log, numbered(0, 30))
    reader.turn()
    shutil.copyfile(log, log.with_name("a.log.1"))
    log.write_bytes(numbered(30, 40))
    settled(reader)
    assert reader.lines == expected((0, 40))
    assert [os.path.basename(path) for path in reader.follower.unreadable()] == ["mem"]


def test_nothing_is_read_before_a_file_with_a_hole_that_was_emptied_and_rotated(log: Path) -> None:
    reader = Reader(log)
    reader.turn()
    log.touch()
    os.truncate(log, 100 * LINE)
    append(log, numbered(0, 1))
    reader.scan()
    shutil.copyfile(log, log.with_name("a.log.1"))
    os.truncate(log, 0)
    os.truncate(log, 101 * LINE)  # its writer keeps its offset
    append(log, numbered(1, 20))
    log.rename(log.with_name("a.log.2"))
    append(log, numbered(20, 40))
    reader.scan()
    reader.read()
    settled(reader)
    assert reader.lines == expected((0, 40))


def test_a_file_that_is_emptied_between_its_listing_and_its_opening_is_read_after_its_copy(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = Follower._list

    def list_and_empty(self: Follower, *arguments: Any) -> Any:
        found = listing(self, *arguments)
        monkeypatch.undo()
        shutil.copyfile(log, log.with_name("a.log.1"))
        log.write_bytes(numbered(20, 25))
        return found

    reader = Reader(log)
    reader.turn()
    append(log, numbered(0, 20))
    monkeypatch.setattr(Follower, "_list", list_and_empty)
    reader.scan()
    reader.read()
    settled(reader)
    assert reader.lines == expected((0, 25))
    assert reader.files == {}


@pytest.mark.parametrize("name", ["a.log", "c-1"])
def test_a_new_file_whose_name_may_be_a_rotated_one_is_not_read_twice_for_its_copy(tmp_path: Path, name: str) -> None:
    reader = Reader(tmp_path / "*")
    reader.turn()
    append(tmp_path / name, numbered(0, 1))
    shutil.copyfile(tmp_path / name, tmp_path / f"{name}.1")
    os.utime(tmp_path / name, (4e9, 4e9))
    reader.turn()
    os.truncate(tmp_path / name, 0)
    settled(reader)
    assert reader.lines == expected((0, 1))
