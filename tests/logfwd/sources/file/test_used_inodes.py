"""New files with the inode, the content or both of deleted ones: content alone never makes a file a known one.

The reuse of an inode is simulated: a file is renamed and rewritten, and its generation, which is part of its handle,
goes up. So the tests do not depend on how the file system hands out free inodes.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from logfwd.sources.file import identity
from logfwd.sources.file.handle import handle_of
from logfwd.sources.position import Mark
from tests.logfwd.sources.file.follow_harness import Reader, append, numbered
from tests.logfwd.sources.file.test_follow import events

DONE = b'{"job":"done"}\n'


class Inodes:
    """Handles of a file system where inodes are used again when the test decides; or none, as on overlayfs."""

    def __init__(self, *, handles: bool = True) -> None:
        self.handles = handles
        self._generations: dict[int, int] = {}

    def handle_of(self, fd: int) -> bytes:
        inode = os.fstat(fd).st_ino
        return b"\x01%d/%d" % (inode, self._generations.get(inode, 1000)) if self.handles else b""

    def use_again(self, old: Path, new: Path, content: bytes, *, later_ns: int = 1_000_000_000) -> None:
        """As if the old file was deleted and the new one, written later, got its inode."""
        status = old.stat()
        old.rename(new)
        new.write_bytes(content)
        os.utime(new, ns=(status.st_mtime_ns + later_ns,) * 2)
        self._generations[status.st_ino] = self._generations.get(status.st_ino, 1000) + 1


@pytest.fixture
def inodes(monkeypatch: pytest.MonkeyPatch) -> Inodes:
    inodes = Inodes()
    monkeypatch.setattr(identity, "handle_of", inodes.handle_of)
    return inodes


def closed(*patterns: Path, folder: Path) -> Reader:
    """A reader that keeps a single file open: the one that `settle` writes to last."""
    return Reader(*patterns, folder / "open", max_open_files=1)


def settle(reader: Reader, folder: Path, count: int) -> None:
    """Read until there are `count` records, and leave all files closed but one."""
    reader.turn()
    append(folder / "open", b"opened\n")
    reader.turn()
    assert reader.lines.count(DONE.strip()) == count
    assert reader.open_files == 1


@pytest.mark.parametrize("more", [b"", b"more\n"])
@pytest.mark.parametrize("new", ["a.json", "b.json", "a.json.1", "a.json-20260131"])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_new_file_with_inode_and_content_of_a_deleted_one_is_read(
    tmp_path: Path, inodes: Inodes, restarted: bool, new: str, more: bytes
) -> None:
    reader = closed(tmp_path / "*.json*", folder=tmp_path)
    append(tmp_path / "a.json", DONE)
    settle(reader, tmp_path, 1)
    inodes.use_again(tmp_path / "a.json", tmp_path / new, DONE + more)
    if restarted:
        reader.restart()
    with capture_logs() as logs:
        settle(reader, tmp_path, 2)
    assert reader.lines.count(b"more") == bool(more)
    assert logs == []  # it is known to be another file
    reader.restart()
    settle(reader, tmp_path, 2)


def test_the_same_when_the_deletion_was_seen_before_the_inode_was_used_again(tmp_path: Path, inodes: Inodes) -> None:
    reader = closed(tmp_path / "*.json", folder=tmp_path)
    append(tmp_path / "a.json", DONE)
    settle(reader, tmp_path, 1)
    away = tmp_path.parent / f"{tmp_path.name}.away"
    (tmp_path / "a.json").rename(away)
    settle(reader, tmp_path, 1)
    inodes.use_again(away, tmp_path / "b.json", DONE)
    settle(reader, tmp_path, 2)
    assert len(reader.positions) == 2  # the deleted file's position went with its inode


def test_a_restart_between_deletion_and_creation_changes_nothing(tmp_path: Path, inodes: Inodes) -> None:
    reader = closed(tmp_path / "*.json", folder=tmp_path)
    append(tmp_path / "a.json", DONE)
    settle(reader, tmp_path, 1)
    away = tmp_path.parent / f"{tmp_path.name}.away"
    (tmp_path / "a.json").rename(away)
    reader.restart()
    settle(reader, tmp_path, 1)
    inodes.use_again(away, tmp_path / "a.json", DONE)
    settle(reader, tmp_path, 2)


def test_a_shorter_new_file_is_not_taken_for_a_truncated_one(tmp_path: Path, inodes: Inodes) -> None:
    """Otherwise a file like the deleted one would be taken for its copy."""
    reader = closed(tmp_path / "job*", folder=tmp_path)
    append(tmp_path / "job", numbered(0, 40))
    settle(reader, tmp_path, 0)
    inodes.use_again(tmp_path / "job", tmp_path / "job", DONE)
    append(tmp_path / "job.1", numbered(0, 40))
    settle(reader, tmp_path, 1)
    for _ in range(8):
        reader.turn()
    assert reader.lines.count(numbered(0, 1).strip()) == 2


@pytest.mark.parametrize(
    ("name", "handles"),
    [("b.json", True), ("a.json.1", True), ("a.json.1", False), ("elsewhere", True), ("elsewhere", False)],
)
def test_a_closed_file_that_was_appended_to_and_renamed_continues_from_its_position(
    tmp_path: Path, inodes: Inodes, name: str, handles: bool
) -> None:
    inodes.handles = handles
    reader = closed(tmp_path / "*.json", folder=tmp_path)
    append(tmp_path / "a.json", DONE)
    settle(reader, tmp_path, 1)
    append(tmp_path / "a.json", b"more\n")
    (tmp_path / "a.json").rename(tmp_path / name)
    settle(reader, tmp_path, 1)
    assert reader.lines.count(b"more") == 1


def test_a_new_file_with_the_times_of_the_deleted_one_is_read_too(tmp_path: Path, inodes: Inodes) -> None:
    """Tools that copy files keep their times."""
    reader = closed(tmp_path / "*.json", folder=tmp_path)
    append(tmp_path / "a.json", DONE)
    settle(reader, tmp_path, 1)
    inodes.use_again(tmp_path / "a.json", tmp_path / "a.json", DONE, later_ns=0)
    settle(reader, tmp_path, 2)


def test_a_stored_position_is_kept_while_its_file_may_be_on_another_file_system(tmp_path: Path, inodes: Inodes) -> None:
    """Devices are not compared across restarts, so an inode used again does not prove that a file was deleted."""
    reader = closed(tmp_path / "*.json", folder=tmp_path)
    append(tmp_path / "a.json", DONE)
    settle(reader, tmp_path, 1)
    inodes.use_again(tmp_path / "a.json", tmp_path / "b.json", DONE)
    reader.restart()
    settle(reader, tmp_path, 2)
    assert len(reader.positions) == 3
    for _ in range(8):
        reader.turn(5 * 86_400)
    assert len(reader.positions) == 2


@pytest.mark.parametrize("handles", [True, False])
def test_a_directory_that_was_away_says_nothing_about_its_files(tmp_path: Path, inodes: Inodes, handles: bool) -> None:
    inodes.handles = handles
    folder, away = tmp_path / "logs", tmp_path / "away"
    folder.mkdir()
    reader = closed(folder / "*.json", folder=tmp_path)
    append(folder / "a.json", DONE)
    settle(reader, tmp_path, 1)
    folder.rename(away)
    settle(reader, tmp_path, 1)
    append(away / "a.json", b"more\n")
    os.utime(away / "a.json", (time.time() + 1,) * 2)
    away.rename(folder)
    settle(reader, tmp_path, 1)
    assert reader.lines.count(b"more") == 1


def test_a_position_in_an_empty_file_proves_nothing_about_a_file_that_is_not_configured(
    tmp_path: Path, inodes: Inodes
) -> None:
    inodes.handles = False
    reader = Reader(tmp_path / "a.json", start_at="end")
    append(tmp_path / "a.json", b"")
    reader.turn()
    assert len(reader.positions) == 1
    inodes.use_again(tmp_path / "a.json", tmp_path / "foreign", DONE)
    reader.restart()
    assert reader.turn() == []


def test_many_rounds_of_equal_files_are_all_read(tmp_path: Path) -> None:
    """With the inodes that the file system really hands out."""
    reader = Reader(tmp_path / "jobs" / "*" / "x.json", max_open_files=8)
    for round_ in range(1, 5):
        for number in range(40):
            append_in(tmp_path / "jobs" / f"{round_}-{number}", DONE)
        reader.turn()
        if round_ == 2:
            reader.restart()
        shutil.rmtree(tmp_path / "jobs")
        assert len(reader.lines) == 40 * round_


def append_in(folder: Path, data: bytes) -> None:
    folder.mkdir(parents=True)
    append(folder / "x.json", data)


@pytest.mark.parametrize("max_open_files", [1, 256])
def test_a_file_that_loses_one_of_its_names_is_not_read_again(tmp_path: Path, max_open_files: int) -> None:
    reader = Reader(tmp_path / "*.log", max_open_files=max_open_files)
    append(tmp_path / "a.log", DONE)
    os.link(tmp_path / "a.log", tmp_path / "b.log")
    append(tmp_path / "c.log", b"other\n")
    reader.turn()
    (tmp_path / "a.log").unlink()
    for _ in range(8):
        reader.turn()
    (tmp_path / "b.log").rename(tmp_path / "d.log")
    append(tmp_path / "d.log", b"more\n")
    reader.turn()
    assert sorted(reader.lines) == [b"more", b"other", DONE.strip()]


@pytest.mark.parametrize("times", [1, 3])
def test_a_file_deleted_and_recreated_with_the_same_content_is_read_again(tmp_path: Path, times: int) -> None:
    log = tmp_path / "a.json"
    reader = Reader(log)
    for made in range(times + 1):
        log.unlink(missing_ok=True)
        append(log, DONE)
        reader.turn(0.1)
        assert len(reader.lines) == made + 1


def test_equal_files_side_by_side_are_all_read_and_possible_copies_are_logged(tmp_path: Path) -> None:
    reader = Reader(tmp_path / "job*")
    append(tmp_path / "job", DONE)
    reader.turn()
    append(tmp_path / "job-1", DONE)
    append(tmp_path / "job-2", DONE)
    with capture_logs() as logs:
        reader.turn()
        assert len(reader.lines) == 1  # it may yet be truncated: then the others are copies
        for _ in range(4):
            reader.turn()
        assert len(reader.lines) == 1
        reader.turn()
        assert len(reader.lines) == 3
    assert [log["possible_repeat_bytes"] for log in logs if log["event"] == "file read again"] == [15, 15]


def test_without_handles_a_new_file_under_another_name_is_read_and_logged(tmp_path: Path, inodes: Inodes) -> None:
    inodes.handles = False
    reader = closed(tmp_path / "*.json", folder=tmp_path)
    for name in ("a", "b", "c"):
        append(tmp_path / f"{name}.json", DONE)
    settle(reader, tmp_path, 3)
    inodes.use_again(tmp_path / "a.json", tmp_path / "new.json", DONE)  # within one scan
    away = tmp_path.parent / f"{tmp_path.name}.away"
    (tmp_path / "b.json").rename(away)
    with capture_logs() as logs:
        settle(reader, tmp_path, 4)
        inodes.use_again(away, tmp_path / "b.json", DONE)  # a scan saw that it was gone
        settle(reader, tmp_path, 5)
    assert [log["path"] for log in logs if log["event"] == "file read again"] == [
        str(tmp_path / "new.json"),
        str(tmp_path / "b.json"),
    ]
    assert [log["possible_repeat_bytes"] for log in logs] == [15, 15]


def test_without_handles_a_copy_is_counted_if_another_file_has_the_inode_of_its_deleted_original(
    tmp_path: Path, inodes: Inodes
) -> None:
    inodes.handles = False
    reader = closed(tmp_path / "*.log", folder=tmp_path)
    append(tmp_path / "a.log", numbered(0, 100))
    settle(reader, tmp_path, 0)
    shutil.copyfile(tmp_path / "a.log", tmp_path / "a.log.1")
    inodes.use_again(tmp_path / "a.log", tmp_path / "b.log", numbered(100, 101))
    with capture_logs() as logs:
        for _ in range(8):
            reader.turn()
    assert sorted(reader.lines)[:-1] == sorted(2 * numbered(0, 100).splitlines() + [numbered(100, 101).strip()])
    said = [(log["path"], log["possible_repeat_bytes"]) for log in logs if log["event"] == "file read again"]
    assert said == [(str(tmp_path / "a.log.1"), len(numbered(0, 100)))]


def test_without_handles_a_copy_is_not_the_file_that_had_its_inode_if_it_has_more_of_a_followed_one(
    tmp_path: Path, inodes: Inodes
) -> None:
    inodes.handles = False
    log, away = tmp_path / "a.log", tmp_path.parent / f"{tmp_path.name}.away"
    reader = closed(log, folder=tmp_path)
    append(log, numbered(0, 3))
    settle(reader, tmp_path, 0)
    log.rename(away)
    append(log, numbered(0, 3))  # restored, and written to
    append(log, numbered(3, 5))
    reader.turn()
    away.write_bytes(log.read_bytes())
    away.rename(tmp_path / "a.log.1")  # a copy that has the inode of the deleted file
    reader.turn()
    os.truncate(log, 0)
    append(log, numbered(5, 6))
    settle(reader, tmp_path, 0)
    numbers = [int(line) for line in reader.lines if line != b"opened"]
    assert numbers == [0, 1, 2, 0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("restarted", [False, True])
def test_without_handles_a_file_that_is_appended_to_or_renamed_is_not_read_again(
    tmp_path: Path, inodes: Inodes, restarted: bool
) -> None:
    inodes.handles = False
    reader = closed(tmp_path / "*.json*", folder=tmp_path)
    for name in ("appended", "renamed", "rotated", "away"):
        append(tmp_path / f"{name}.json", DONE)
    settle(reader, tmp_path, 4)
    append(tmp_path / "appended.json", b"1\n")
    (tmp_path / "renamed.json").rename(tmp_path / "other.json")
    append(tmp_path / "rotated.json", b"2\n")
    (tmp_path / "rotated.json").rename(tmp_path / "rotated.json.1")
    away = tmp_path.parent / f"{tmp_path.name}.away"
    (tmp_path / "away.json").rename(away)
    with capture_logs() as logs:
        if restarted:
            reader.restart()
        settle(reader, tmp_path, 4)
        away.rename(tmp_path / "away.json")
        settle(reader, tmp_path, 4)
    assert sorted(line for line in reader.lines if len(line) == 1) == [b"1", b"2"]
    assert events(logs, "file read again") == []


def test_stored_marks_without_handles_still_fit(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    reader = Reader(log)
    append(log, numbered(0, 10))
    reader.turn()
    ((key, mark),) = reader.positions.items()
    detail = msgspec.msgpack.encode(msgspec.msgpack.decode(mark.detail)[:6])
    reader.positions[key] = Mark(mark.offset, mark.tail_bytes, mark.tail_hash, detail)
    reader.restart()
    append(log, numbered(10, 20))
    reader.turn()
    assert reader.lines == numbered(0, 20).splitlines()
    (stored,) = reader.positions.values()
    fd = os.open(log, os.O_RDONLY)
    assert msgspec.msgpack.decode(stored.detail)[6] == handle_of(fd)
    os.close(fd)


def test_a_deleted_file_with_unread_lines_is_not_closed_to_make_room(tmp_path: Path) -> None:
    reader = Reader(tmp_path / "a.log", tmp_path / "b.log", max_open_files=1)
    append(tmp_path / "a.log", numbered(0, 5))
    append(tmp_path / "b.log", numbered(5, 10))
    reader.scan()  # the second one is open, neither is read
    for name in ("a", "b"):
        (tmp_path / f"{name}.log").unlink()
    reader.read()  # before a scan has noticed
    reader.turn()
    assert reader.lines == numbered(5, 10).splitlines()  # the other one could not be opened again


def test_a_closed_unread_file_is_read_under_any_name(tmp_path: Path) -> None:
    reader = Reader(tmp_path / "*.log", max_open_files=1)
    append(tmp_path / "a.log", numbered(0, 5))
    append(tmp_path / "b.log", numbered(5, 10))
    reader.scan()
    (tmp_path / "a.log").rename(tmp_path / "elsewhere")
    reader.turn()  # while it is not committed, it cannot be closed for the other one …
    reader.turn()  # … which then has its turn
    assert sorted(reader.lines) == numbered(0, 10).splitlines()


def test_unread_bytes_of_a_file_that_is_gone_are_logged(tmp_path: Path, inodes: Inodes) -> None:
    reader = closed(tmp_path / "*.json", folder=tmp_path)
    append(tmp_path / "a.json", DONE + b"no end")
    append(tmp_path / "b.json", DONE + b"half")
    settle(reader, tmp_path, 2)
    inodes.use_again(tmp_path / "a.json", tmp_path / "c.json", DONE)
    with capture_logs() as logs:
        settle(reader, tmp_path, 3)
        (tmp_path / "b.json").unlink()
        for _ in range(10):
            reader.turn(600)
    gone = [(log["path"], log["bytes"]) for log in logs if log["event"] == "file gone unread"]
    assert gone == [(str(tmp_path / "a.json"), 6), (str(tmp_path / "b.json"), 4)]


def test_a_file_whose_deletion_was_seen_before_a_restart_is_not_known_by_its_content(tmp_path: Path) -> None:
    log = tmp_path / "a.json"
    reader = Reader(log)
    append(log, numbered(0, 40))
    reader.turn()
    log.unlink()
    reader.turn()  # it is read to its end, and still open
    reader.restart()
    append(log, numbered(0, 40))
    with capture_logs() as logs:
        reader.turn()
    assert len(reader.lines) == 80
    said = [each["possible_repeat_bytes"] for each in logs if each["event"] == "file read again"]
    assert said == [len(numbered(0, 40))]
