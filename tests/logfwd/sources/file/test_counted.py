"""What may be lost or repeated is counted, and said with its size; what is ordinary is not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from logfwd.sources.file.marks import read_mark
from tests.logfwd.sources.file.follow_harness import Reader, append, numbered
from tests.logfwd.sources.file.test_which import expected, said, settled

LINE = len(numbered(0, 1))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "app.log"


def overwrite(log: Path, at: int) -> None:
    with log.open("r+b") as file:
        file.seek(at)
        file.write(b"X")


def edit_the_end(log: Path) -> None:
    overwrite(log, log.stat().st_size - 5)


def edit_the_head(log: Path) -> None:
    overwrite(log, 5)


def shorten(log: Path) -> None:
    os.truncate(log, 40 * LINE)


def save(log: Path) -> None:
    """As `sed -i` and editors do: a new file gets the name of the deleted one."""
    shutil.copyfile(log, log.with_name("new"))
    log.with_name("new").rename(log)


@pytest.mark.parametrize(
    ("lines", "change", "again"),
    [(20, edit_the_end, 20), (20, edit_the_head, 20), (100, edit_the_head, 100), (100, shorten, 40), (100, save, 100)],
)
@pytest.mark.parametrize("restarted", [False, True])
def test_what_a_change_in_place_repeats_is_counted(
    log: Path, lines: int, change: Callable[[Path], None], again: int, restarted: bool
) -> None:
    reader = Reader(log)
    append(log, numbered(0, lines))
    reader.turn()
    change(log)
    if restarted:
        reader.restart()
    with capture_logs() as logs:
        settled(reader)
    if (change is save and restarted) or (change is edit_the_head and not restarted):
        again = 0  # known by its content; and a file that is open is compared with the end of what was read
    repeated = again
    assert len(reader.lines) == lines + repeated
    assert (reader.files["read_again"], reader.file_bytes["read_again"]) == (repeated > 0, repeated * LINE)
    assert [each["possible_repeat_bytes"] for each in said(logs, "file read again")] == [repeated * LINE][:repeated]


def test_what_a_short_file_repeats_that_has_grown_under_another_inode_is_counted(tmp_path: Path, log: Path) -> None:
    reader = Reader(log)
    append(log, numbered(0, 10))
    reader.turn()
    reader.follower.close()
    shutil.copyfile(log, tmp_path / "copy")
    log.rename(tmp_path.parent / f"{tmp_path.name}.original")
    (tmp_path / "copy").rename(log)
    append(log, numbered(10, 15))
    reader.restart()
    settled(reader)
    assert reader.lines == expected((0, 10), (0, 15))
    assert (reader.files["read_again"], reader.file_bytes["read_again"]) == (1, 10 * LINE)


@pytest.mark.parametrize("pattern", ["app.log", "app.log*"])
def test_rotations_and_the_files_that_they_delete_in_the_end_say_nothing(tmp_path: Path, pattern: str) -> None:
    reader = Reader(tmp_path / pattern)
    log = tmp_path / "app.log"
    for day in range(12):
        append(log, numbered(day * 100, day * 100 + 100))
        settled(reader)
        for index in range(3, 0, -1):
            if (old := tmp_path / f"app.log.{index}").exists():
                old.rename(tmp_path / f"app.log.{index + 1}")
        if day % 3:
            log.rename(tmp_path / "app.log.1")
        else:
            shutil.copyfile(log, tmp_path / "app.log.1")
            os.truncate(log, 0)
        if day % 4 == 3:
            (tmp_path / "app.log.1").unlink()  # after it was read, and before anybody has looked
        settled(reader)
        if day % 2:
            reader.follower.close()
            (tmp_path / "app.log.4").unlink(missing_ok=True)
            reader.restart()
    settled(reader)
    assert len(reader.lines) == 1200
    assert reader.files == {}


def test_files_that_were_deleted_while_the_forwarder_was_stopped_are_said_once(tmp_path: Path) -> None:
    reader = Reader(tmp_path / "*.log")
    for name in ("a", "b", "c"):
        append(tmp_path / f"{name}.log", numbered(0, 10))
    reader.turn()
    reader.follower.close()
    for name in ("a", "b"):
        append(tmp_path / f"{name}.log", numbered(10, 20))
        (tmp_path / f"{name}.log").unlink()
    for _ in range(3):
        reader.restart()
        with capture_logs() as logs:
            settled(reader)
            settled(reader)
        found = said(logs, "files gone while stopped")
        assert [each["files"] for each in found] == ([2] if _ == 0 else [])
    assert (reader.files["not_found"], reader.file_bytes["not_found"]) == (2, 20 * LINE)


def test_a_new_file_like_a_deleted_one_that_is_still_open_does_not_wait(log: Path) -> None:
    reader = Reader(log)
    append(log, numbered(0, 100))
    reader.turn()
    log.unlink()
    append(log, numbered(0, 100))
    reader.turn(0.1)
    assert len(reader.lines) == 200


def test_a_deleted_file_is_read_on_for_a_minute_after_each_line_though_nobody_knows_its_writer(log: Path) -> None:
    reader = Reader(log, rotated_wait_seconds=60.0)
    with log.open("ab", buffering=0) as writer:
        writer.write(numbered(0, 1))
        reader.turn()
        log.unlink()
        for minute in range(1, 4):
            reader.turn(30)
            reader.turn(25)
            writer.write(numbered(minute, minute + 1))
            reader.turn()
        assert reader.lines == expected((0, 4))
        assert reader.files == {}
        reader.turn(61)
        reader.turn(61)
    assert reader.open_files == 0
    assert reader.files == {"let_go": 1}


def test_a_position_that_waits_to_be_stored_is_stored_before_its_file_is_read_on(tmp_path: Path, log: Path) -> None:
    reader = Reader(tmp_path / "*.log", max_open_files=1)
    append(log, numbered(0, 100))
    reader.turn()
    away = tmp_path.parent / f"{tmp_path.name}.away"
    log.rename(away)
    append(tmp_path / "b.log", numbered(500, 600))
    reader.scan()  # app.log was read and is gone: its position is to be stored as settled
    append(away, numbered(100, 110))
    away.rename(log)
    settled(reader)
    reader.restart()
    settled(reader)
    assert sorted(reader.lines) == expected((0, 110), (500, 600))


def test_a_file_emptied_and_begun_again_with_an_equal_banner_is_no_copy_of_itself(tmp_path: Path, log: Path) -> None:
    banner = numbered(900, 920)
    reader = Reader(log)
    append(log, banner + numbered(0, 100))
    reader.turn()
    log.write_bytes(banner + numbered(200, 203))
    settled(reader)
    assert reader.lines == expected((900, 920), (0, 100), (900, 920), (200, 203))
    assert reader.file_bytes["read_again"] == 23 * LINE


def test_a_shorter_rotated_file_with_an_equal_banner_is_no_copy_of_an_emptied_one(tmp_path: Path, log: Path) -> None:
    banner = numbered(900, 920)
    reader = Reader(log)
    append(log, banner + numbered(0, 100))
    reader.turn()
    os.truncate(log, 0)
    append(tmp_path / "app.log.1", banner + numbered(200, 250))  # made and rotated before anybody looked
    settled(reader)
    assert reader.lines == expected((900, 920), (0, 100), (900, 920), (200, 250))


def test_a_copy_and_its_emptied_original_are_told_apart_though_both_were_renamed(tmp_path: Path) -> None:
    """Of which name `c-1.1` is a rotation depends on the files that are there."""
    log = tmp_path / "c-1"
    reader = Reader(tmp_path / "*", max_open_files=1)
    append(log, numbered(0, 4))
    reader.turn()
    append(tmp_path / "b.log", numbered(900, 910))  # so the other one is closed
    reader.turn()
    shutil.copyfile(log, tmp_path / "c-1.2")
    os.truncate(log, 0)
    append(log, numbered(100, 130))
    log.rename(tmp_path / "c-1.1")
    settled(reader)
    assert sorted(reader.lines) == expected((0, 4), (100, 130), (900, 910))


def test_of_two_emptied_files_a_copy_continues_the_one_that_it_is_a_copy_of(tmp_path: Path, log: Path) -> None:
    reader = Reader(log, rotated_wait_seconds=60.0)
    append(log, numbered(0, 30))
    reader.turn()
    os.truncate(log, 0)
    reader.turn()
    append(log, numbered(100, 110))
    reader.turn()
    append(log, numbered(110, 115))
    shutil.copyfile(log, tmp_path / "app.log.1")
    reader.turn()  # it waits
    append(tmp_path / "app.log.1", numbered(115, 120))  # what was written between two steps of the copy
    os.truncate(log, 0)
    settled(reader)
    assert reader.lines == expected((0, 30), (100, 120))


def test_a_copy_that_has_waited_takes_over_when_its_original_was_emptied_meanwhile(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    reader = Reader(tmp_path / "*")
    append(log, numbered(0, 20))
    reader.turn()
    shutil.copyfile(log, tmp_path / "app.log.2")
    reader.turn()
    os.truncate(log, 0)
    append(log, numbered(100, 130))
    log.rename(tmp_path / "app.log.1")
    reader.turn(7)  # longer than copies wait
    settled(reader)
    assert sorted(reader.lines) == expected((0, 20), (100, 130))


def test_the_inode_of_a_deleted_file_is_not_known_any_more(log: Path) -> None:
    reader = Reader(log)
    append(log, numbered(0, 10))
    reader.turn()
    log.unlink()
    reader.turn()
    assert reader.open_files == 1
    assert [known[0].inode for known in map(read_mark, reader.positions.values()) if known] == [0]


def test_a_copy_is_not_given_up_in_a_scan_that_has_to_be_repeated(tmp_path: Path) -> None:
    first, second = tmp_path / "a.log", tmp_path / "b.log"
    reader = Reader(tmp_path / "*.log", max_open_files=1)
    append(first, numbered(0, 10))
    append(second, numbered(100, 110))
    reader.turn()
    reader.turn()
    append(first, numbered(10, 11))
    reader.turn()  # so the second one is closed
    content = first.read_bytes()
    os.truncate(first, 0)
    reader.turn()
    (tmp_path / "a.log.1").write_bytes(content + numbered(11, 12))
    os.truncate(second, 0)
    reader.turn(30)
    settled(reader)
    assert sorted(reader.lines) == expected((0, 12), (100, 110))


def test_a_second_copy_of_an_emptied_file_waits_for_the_first_one(tmp_path: Path, log: Path) -> None:
    reader = Reader(tmp_path / "*")
    append(log, numbered(0, 100))
    append(tmp_path / "other", b"")
    reader.turn()
    for name in ("app.log.1", "saved"):
        shutil.copyfile(log, tmp_path / name)
    os.truncate(log, 0)
    reader.turn()
    assert len(reader.lines) == 100
    settled(reader)
    assert len(reader.lines) == 200
    assert (reader.files["read_again"], reader.file_bytes["read_again"]) == (1, 100 * LINE)


def test_a_rotated_file_is_no_copy_of_one_that_is_shorter(tmp_path: Path, log: Path) -> None:
    reader = Reader(log)
    append(log, b"")
    reader.turn()
    append(tmp_path / "app.log.8", numbered(0, 100))  # a copy of the beginning, made before anybody looked
    settled(reader)
    append(tmp_path / "app.log.1", numbered(0, 120))
    settled(reader)
    assert reader.lines == expected((0, 100), (0, 120))
    assert (reader.files["read_again"], reader.file_bytes["read_again"]) == (1, 100 * LINE)


def test_a_copy_that_cannot_be_opened_yet_is_not_given_up(tmp_path: Path, log: Path) -> None:
    reader = Reader(tmp_path / "*", max_open_files=1)
    append(log, numbered(0, 5))
    reader.turn()
    shutil.copyfile(log, tmp_path / "app.log.1")
    os.truncate(log, 0)
    append(tmp_path / "other", numbered(100, 110))
    for _ in range(4):
        reader.now += 10
        reader.scan()  # whichever is open is not read, so it is not closed for another one
    settled(reader)
    assert sorted(reader.lines) == expected((0, 5), (100, 110))


def test_what_a_longer_copy_repeats_of_a_restored_file_is_counted(tmp_path: Path, log: Path) -> None:
    reader = Reader(log)
    append(log, numbered(0, 100))
    reader.turn()
    reader.follower.close()
    shutil.copyfile(log, tmp_path / "app.log.2")
    append(tmp_path / "app.log.1", numbered(0, 120))
    log.rename(tmp_path.parent / f"{tmp_path.name}.original")
    reader.restart()
    settled(reader)
    assert reader.lines == expected((0, 100), (0, 120))
    assert reader.file_bytes == {"recognised": 100 * LINE, "read_again": 100 * LINE}
