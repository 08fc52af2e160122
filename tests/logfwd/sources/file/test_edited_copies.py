"""Copies beside an original that was edited in place after they were made: all of them is compared."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.logfwd.sources.file.follow_harness import Reader, append, edit_near_end, numbered


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "a.log"


@pytest.mark.parametrize("read_before", [100, 300])
@pytest.mark.parametrize("is_up", [True, False])
def test_a_copy_beside_an_original_that_was_edited_since_is_not_read(log: Path, read_before: int, is_up: bool) -> None:
    append(log, numbered(0, read_before))
    reader = Reader(log, max_open_files=1)
    reader.turn()
    append(log, numbered(read_before, 310))
    shutil.copyfile(log, log.with_name("a.log.1"))
    edit_near_end(log)
    if not is_up:
        reader.restart()
    reader.turn()
    append(log, numbered(310, 500))
    for _ in range(5):
        reader.turn(20)
        reader.restart()
    assert len(reader.lines) == 500
    assert not reader.files["read_again"]
    assert reader.files["edited"]


@pytest.mark.parametrize("lines", [2, 10, 400])
def test_a_file_that_goes_on_otherwise_than_the_one_that_it_begins_like_is_no_copy(log: Path, lines: int) -> None:
    append(log, numbered(0, 100))
    reader = Reader(log, max_open_files=1)
    reader.turn()
    shutil.copyfile(log, log.with_name("a.log.1"))
    append(log.with_name("a.log.1"), numbered(7000, 7000 + lines))
    append(log, numbered(1000, 1000 + lines))
    for _ in range(3):
        reader.turn(20)
        reader.restart()
    assert set(reader.lines) >= set(numbered(7000, 7000 + lines).splitlines())
    assert set(reader.lines) >= set(numbered(1000, 1000 + lines).splitlines())


def test_several_copies_of_a_file_that_is_edited_in_between_are_parts_of_the_last_one(log: Path) -> None:
    append(log, numbered(0, 290))
    reader = Reader(log, max_open_files=2)
    reader.turn()
    append(log, numbered(290, 300))
    shutil.copyfile(log, log.with_name("a.log.1"))
    edit_near_end(log)
    reader.scan()
    append(log, numbered(300, 320))
    shutil.copyfile(log, log.with_name("a.log.2"))
    os.truncate(log, 0)
    append(log, numbered(320, 330))
    for _ in range(10):
        reader.turn(2)
    assert len(reader.lines) == 330
    assert (reader.files["edited"], reader.files["read_again"]) == (1, 0)


@pytest.mark.parametrize("is_killed", [True, False])
def test_an_edit_that_was_not_noticed_before_the_copy_was_makes_no_difference(log: Path, is_killed: bool) -> None:
    append(log, numbered(0, 300))
    reader = Reader(log)
    reader.turn()
    shutil.copyfile(log, log.with_name("a.log.1"))
    edit_near_end(log)
    if is_killed:
        reader.restart()
    reader.scan()
    for _ in range(5):
        reader.turn(2)
    assert len(reader.lines) == 300
    assert not reader.files["read_again"]


def test_a_copy_of_a_rotated_file_that_waits_to_be_opened_is_not_read(log: Path) -> None:
    append(log, numbered(0, 300))
    reader = Reader(log, max_open_files=1)
    reader.turn()
    append(log, numbered(300, 310))
    shutil.copyfile(log, log.with_name("a.log.1"))
    edit_near_end(log)
    log.rename(log.with_name("a.log.2"))
    append(log, numbered(310, 320))
    reader.restart()
    for _ in range(5):
        reader.turn(20)
    assert len(reader.lines) == 320
    assert not reader.files["read_again"]
