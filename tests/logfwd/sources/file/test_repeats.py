"""What is read twice because nobody can know better is counted, also when the file that had it before is known no more.

Each of these came out of a history of test_model.py or test_writer_model.py.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from logfwd.sources.file import follow, identity, scan
from tests.logfwd.sources.file.follow_harness import Reader, append, numbered
from tests.logfwd.sources.file.test_used_inodes import Inodes
from tests.logfwd.sources.file.test_which import settled

LINE = len(numbered(0, 1))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "app.log"


def test_copies_of_a_rotated_file_wait_though_another_file_has_its_name_by_now(log: Path) -> None:
    reader = Reader(log, max_open_files=1)
    append(log, numbered(0, 100))
    reader.turn()
    for name in ("app.log.1", "app.log.2"):
        shutil.copyfile(log, log.with_name(name))
    log.rename(log.with_name("app.log.3"))
    append(log, numbered(100, 110))
    settled(reader)
    assert reader.lines == numbered(0, 110).splitlines()
    assert not reader.files


@pytest.mark.parametrize("is_copied", [False, True])
def test_what_is_read_again_of_a_file_that_was_closed_when_it_was_deleted_is_counted(
    tmp_path: Path, log: Path, is_copied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    inodes = Inodes()
    monkeypatch.setattr(identity, "handle_of", inodes.handle_of)
    reader = Reader(log, tmp_path / "open", max_open_files=1)
    append(log, numbered(0, 20))
    reader.turn()
    append(tmp_path / "open", numbered(100, 101))
    reader.turn()
    if is_copied:  # a copy of a deleted file is a file of its own
        shutil.copyfile(log, log.with_name("app.log.1"))
        reader.turn()
    inodes.use_again(log, log, numbered(200, 220) if is_copied else numbered(0, 25))
    settled(reader)
    again = numbered(0, 20) + numbered(200, 220) if is_copied else numbered(0, 25)
    assert sorted(reader.lines) == sorted((numbered(0, 20) + numbered(100, 101) + again).splitlines())
    assert (reader.files["read_again"], reader.file_bytes["read_again"]) == (1, 20 * LINE)


@pytest.mark.parametrize("is_open", [False, True])
@pytest.mark.parametrize("is_killed", [False, True])
def test_without_handles_what_a_doubtful_file_repeats_is_said_once_and_only_if_it_is_read(
    tmp_path: Path, is_open: bool, is_killed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "handle_of", lambda _: b"")
    reader = Reader(tmp_path / "*.json", tmp_path / "open", max_open_files=256 if is_open else 1)
    append(tmp_path / "a.json", numbered(0, 20))
    reader.turn()
    append(tmp_path / "open", numbered(100, 101))
    reader.turn()
    Inodes().use_again(tmp_path / "a.json", tmp_path / "new.json", numbered(0, 20))
    if is_killed:
        reader.restart()
    settled(reader)
    again = 0 if is_open or is_killed else 20  # an open file is known, and after a restart its content makes it known
    assert len(reader.lines) == 21 + again
    assert (reader.files["read_again"], reader.file_bytes["read_again"]) == (again > 0, again * LINE)


def test_a_rotated_copy_too_short_to_be_compared_with_a_deleted_file_is_counted(log: Path) -> None:
    reader = Reader(log)
    append(log, numbered(0, 2))
    reader.turn()
    shutil.copyfile(log, log.with_name("app.log.1"))
    append(log, numbered(2, 4))
    reader.turn()
    reader.follower.close()
    os.unlink(log)
    append(log.with_name("keeps its inode"), b"")
    reader.restart()
    settled(reader)
    assert reader.lines == (numbered(0, 4) + numbered(0, 2)).splitlines()
    assert (reader.files["read_again"], reader.file_bytes["read_again"]) == (1, 2 * LINE)


@pytest.mark.parametrize("is_remounted", [False, True])
@pytest.mark.parametrize("lines", [100, 250])
def test_a_file_that_was_shortened_and_has_grown_again_before_anybody_looked_is_counted(
    log: Path, is_remounted: bool, lines: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Reader(log)
    append(log, numbered(0, 200))
    reader.turn()
    reader.follower.close()
    if is_remounted:
        monkeypatch.setattr(identity, "handle_of", lambda _: b"")
        for module in (identity, scan, follow):
            monkeypatch.setattr(module, "id_of", lambda status: (status.st_dev + 1, status.st_ino))
    os.truncate(log, 20 * LINE)
    append(log, numbered(300, 300 + lines - 20))
    reader.restart()
    settled(reader)
    assert reader.lines == (numbered(0, 200) + numbered(0, 20) + numbered(300, 280 + lines)).splitlines()
    assert reader.files["read_again"] == 1
    assert 20 * LINE <= reader.file_bytes["read_again"] <= 50 * LINE


def test_a_file_edited_at_its_head_that_returns_on_another_device_is_counted_though_its_name_is_another_ones(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "handle_of", lambda _: b"")
    reader = Reader(log, rotated_wait_seconds=60.0)
    append(log, numbered(0, 200))
    reader.turn()
    with log.open("r+b") as file:
        file.seek(20)
        file.write(b"9")
    for name in ("app.log.2", "app.log.1"):
        log.rename(log.with_name(name))
        append(log, numbered(300, 320))
        reader.turn()
    log.parent.rename(away := log.parent.with_name("away"))
    for _ in range(4):
        reader.turn(100)
    for module in (identity, scan, follow):
        monkeypatch.setattr(module, "id_of", lambda status: (status.st_dev + 1, status.st_ino))
    away.rename(log.parent)
    reader.turn()
    assert len(reader.lines) == len(set(reader.lines)) + 199
    assert reader.file_bytes["read_again"] >= 200 * LINE


def test_what_was_not_read_of_a_file_shortened_on_another_device_is_counted(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Reader(log)
    append(log, numbered(0, 200))
    reader.turn()
    append(log, numbered(200, 202))
    reader.scan()
    os.truncate(log, 100 * LINE)
    reader.scan()
    log.parent.rename(away := log.parent.with_name("away"))
    for module in (identity, scan, follow):
        monkeypatch.setattr(module, "id_of", lambda status: (status.st_dev + 1, status.st_ino))
    away.rename(log.parent)
    for _ in range(5):
        reader.turn(20)
    assert (reader.files["gone_unread"], reader.file_bytes["gone_unread"]) == (1, 2 * LINE)


def test_a_short_file_edited_before_it_was_copied_and_emptied_is_read_again_and_counted(log: Path) -> None:
    append(log, numbered(0, 10))
    reader = Reader(log)
    reader.turn()
    with log.open("r+b") as file:
        file.seek(5 * LINE)
        file.write(b"9")
    append(log, numbered(10, 12))
    shutil.copyfile(log, log.with_name("app.log.1"))
    os.truncate(log, 0)
    reader.restart()
    settled(reader)
    assert len(reader.lines) == 22
    assert (reader.files["read_again"], reader.file_bytes["read_again"]) == (1, 10 * LINE)


def test_a_copy_under_any_name_of_a_file_deleted_while_it_was_closed_is_counted(
    tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inodes = Inodes()
    monkeypatch.setattr(identity, "handle_of", inodes.handle_of)
    reader = Reader(tmp_path / "*", max_open_files=1)
    append(log, numbered(0, 20))
    reader.turn()
    append(tmp_path / "open", numbered(100, 101))
    reader.turn()
    shutil.copyfile(log, tmp_path / "backup of app")
    inodes.use_again(log, log, numbered(200, 220))
    settled(reader)
    assert len(reader.lines) == 61
    assert (reader.files["read_again"], reader.file_bytes["read_again"]) == (1, 20 * LINE)


@pytest.mark.parametrize("is_up", [True, False])
def test_without_handles_the_copy_of_an_emptied_file_is_known_though_it_has_the_inode_of_an_older_one(
    log: Path, is_up: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    inodes = Inodes(handles=False)
    monkeypatch.setattr(identity, "handle_of", inodes.handle_of)
    reader = Reader(log)
    append(log, numbered(0, 2))
    reader.turn()
    reader.follower.close()
    older = log.parent.with_name("older")
    log.rename(older)
    append(log, numbered(0, 40))  # a restored file begins as the older one did
    reader.restart()
    settled(reader)
    inodes.use_again(older, log.with_name("app.log.1"), log.read_bytes())
    os.truncate(log, 0)
    if not is_up:
        reader.restart()
    settled(reader)
    assert reader.lines == (numbered(0, 2) + numbered(0, 40)).splitlines()
    assert reader.file_bytes["read_again"] == 2 * LINE


def test_all_that_a_file_may_repeat_is_counted_though_another_one_had_its_inode_on_another_device(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "handle_of", lambda _: b"")
    other = log.with_name("other.log")
    reader = Reader(log, other)
    append(log, numbered(0, 20))
    append(other, numbered(500, 502))
    reader.turn()
    reader.follower.close()
    other.rename(older := log.parent.with_name("older"))
    for module in (identity, scan, follow):
        monkeypatch.setattr(module, "id_of", lambda status: (status.st_dev + 1, status.st_ino))
    reader.restart()
    settled(reader)  # the device is another one: what is under the same name is read again
    again = reader.file_bytes["read_again"]
    Inodes().use_again(older, log.with_name("new"), log.read_bytes())
    log.with_name("new").rename(log)
    settled(reader)
    assert reader.file_bytes["read_again"] == again + 20 * LINE


@pytest.mark.parametrize("restored", [120, 180])
def test_what_a_file_restored_from_an_older_copy_repeats_is_counted(log: Path, restored: int) -> None:
    reader = Reader(log)
    append(log, numbered(0, restored))
    reader.turn()
    shutil.copyfile(log, log.with_name("backup"))
    append(log, numbered(restored, 200))
    reader.turn()
    reader.follower.close()
    log.rename(log.parent.with_name("older"))
    log.with_name("backup").rename(log)
    append(log, numbered(300, 310))
    reader.restart()
    settled(reader)
    assert reader.lines == (numbered(0, 200) + numbered(0, restored) + numbered(300, 310)).splitlines()
    assert restored * LINE <= reader.file_bytes["read_again"] <= 200 * LINE


def test_what_a_file_repeats_behind_the_position_by_which_it_is_known_is_counted(tmp_path: Path) -> None:
    """Editors keep what they save over as a backup; the one before that is gone."""
    log, backup = tmp_path / "app.log", tmp_path / "app.log~"
    reader = Reader(log)

    def save() -> None:
        shutil.copyfile(log, tmp_path / "new")
        log.rename(backup)
        (tmp_path / "new").rename(log)

    append(log, numbered(0, 100))
    settled(reader)
    save()
    settled(reader)
    append(log, numbered(100, 150))
    settled(reader)
    assert reader.file_bytes == {"read_again": 100 * LINE}
    reader.follower.close()
    save()
    append(log, numbered(150, 160))
    reader.restart()
    settled(reader)
    counted = reader.file_bytes["read_again"]
    assert len(reader.lines) == 160 + counted // LINE
    assert set(reader.lines) == set(numbered(0, 160).splitlines())
