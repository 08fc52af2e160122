"""Between two scans only what cannot be anything but new is followed."""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from logfwd.sources.file.follow import Follower
from logfwd.sources.file.notify import Inotify
from logfwd.sources.settings import FileSource
from tests.logfwd.sources.file.follow_harness import Reader, append, numbered


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    """One that has read a.log, and b.log, which is gone."""
    append(tmp_path / "a.log", numbered(0, 40))
    append(tmp_path / "b.log", numbered(50, 60))
    reader = Reader(tmp_path / "*.log", tmp_path / "*.log.?")
    reader.turn()
    (tmp_path / "b.log").rename(tmp_path / "gone")
    reader.turn(20)
    reader.turn(20)
    return reader


def between_scans(reader: Reader, path: Path) -> list[bytes]:
    """What is read of a file that inotify has named."""
    reader.follower.follow_new([str(path)], reader.now, 1)
    reader.read()
    before = len(reader.lines)
    reader.commit()
    return reader.lines[before:]


def read_all(follower: Follower) -> bytes:
    """What a follower that is driven without commits hands over next."""
    return b"".join(block.data for block in iter(lambda: follower.read(1001.0, 1), None))


def test_a_new_file_is_followed_and_the_next_scan_changes_nothing(reader: Reader, tmp_path: Path) -> None:
    new = tmp_path / "new.log"
    append(new, numbered(100, 110))
    assert between_scans(reader, new) == numbered(100, 110).splitlines()
    append(new, numbered(110, 120))
    assert reader.turn() == numbered(110, 120).splitlines()
    reader.restart()
    assert reader.turn() == []


def linked(path: Path) -> None:
    path.symlink_to(path.with_name("gone"))


def copied(path: Path) -> None:
    shutil.copy(path.with_name("a.log"), path)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("c.log.1", lambda path: append(path, numbered(200, 210))),
        ("b.log", lambda path: append(path, numbered(200, 210))),
        ("a.log", lambda path: os.replace(path.with_name("gone"), path)),
        ("c.txt", lambda path: append(path, numbered(200, 210))),
        ("c.log", Path.touch),
        ("c.log", Path.mkdir),
        ("c.log", linked),
        ("c.log", copied),
        ("c.log", lambda path: path.write_bytes(gzip.compress(numbered(200, 210)))),
        ("c.log", lambda path: path.with_name("gone").rename(path)),
    ],
    ids=[
        "rotated",
        "gone_before",
        "followed",
        "foreign",
        "empty",
        "directory",
        "link",
        "copy",
        "compressed",
        "renamed",
    ],
)
def test_whatever_else_it_may_be_waits_for_the_scan(
    reader: Reader, tmp_path: Path, name: str, make: Callable[[Path], None]
) -> None:
    make(tmp_path / name)
    assert between_scans(reader, tmp_path / name) == []


def test_while_a_copy_of_an_emptied_file_is_looked_for_no_file_is_followed(reader: Reader, tmp_path: Path) -> None:
    os.truncate(tmp_path / "a.log", 0)
    reader.follower.poll(reader.now)
    append(tmp_path / "c.log", numbered(200, 210))
    assert between_scans(reader, tmp_path / "c.log") == []


def test_a_file_whose_name_another_one_had_waits_for_the_scan_that_finds_both(tmp_path: Path) -> None:
    notifier, path = Inotify(), tmp_path / "a.log"
    settings = FileSource(paths=(str(tmp_path / "*.log"),))
    follower = Follower(settings, {}, block_bytes=1 << 20, max_record_bytes=1000, notifier=notifier)
    follower.scan(1000.0, 1)
    assert follower.read(1000.0, 1) is not None, "that the first scan was made"
    append(path, numbered(0, 10))
    path.rename(tmp_path / "a.log.1")
    append(path, numbered(10, 20))
    events = notifier.drain()
    assert str(path) in events.paths
    follower.follow_new(events.paths, 1000.1, 1)
    assert follower.read(1000.1, 1) is None
    follower.scan(1000.2, 1)
    assert read_all(follower) == numbered(0, 20)
    follower.close()
    notifier.close()


@pytest.mark.parametrize("copy", ["a.log.5", "a.log-20260131", "old/a.2026"])
@pytest.mark.parametrize("made_as", ["", ".tmp"], ids=["copied", "copied_and_renamed"])
def test_a_file_that_was_copied_and_emptied_before_anybody_looked_waits_for_the_scan_that_finds_its_copy(
    tmp_path: Path, copy: str, made_as: str
) -> None:
    notifier, path = Inotify(), tmp_path / "a.log"
    (tmp_path / "old").mkdir()
    settings = FileSource(paths=(str(tmp_path / "*.log"),), rotated=(str(tmp_path / "old" / "*.2026"),))
    follower = Follower(settings, {}, block_bytes=1 << 20, max_record_bytes=1000, notifier=notifier)
    follower.scan(1000.0, 1)
    assert follower.read(1000.0, 1) is not None, "that the first scan was made"
    append(path, numbered(0, 200))
    shutil.copyfile(path, tmp_path / f"{copy}{made_as}")
    (tmp_path / f"{copy}{made_as}").rename(tmp_path / copy)
    follower.follow_new(notifier.drain().paths - {str(path)}, 1000.1, 1)
    os.truncate(path, 0)
    append(path, numbered(200, 240))
    append(tmp_path / "b.log", numbered(500, 510))  # a new file of another name does not wait
    follower.follow_new(notifier.drain().paths | {str(path)}, 1000.1, 1)
    first = read_all(follower)
    assert first == (b"" if copy.startswith("old") else numbered(500, 510))
    follower.scan(1000.2, 1)
    rest = (first + read_all(follower)).split(numbered(500, 510))
    assert b"".join(rest) == numbered(0, 240)
    append(tmp_path / "c.log", numbered(600, 610))
    follower.follow_new(notifier.drain().paths, 1000.3, 1)
    assert read_all(follower) == numbered(600, 610)  # it does not wait for what the scan has found
    follower.close()
    notifier.close()


def test_a_new_file_does_not_wait_where_rotated_names_it_or_files_that_are_excluded(tmp_path: Path) -> None:
    reader = Reader(tmp_path / "*.log", rotated=(str(tmp_path / "*"),), exclude=("*.tmp",))
    reader.turn()
    new, foreign = tmp_path / "new.log", tmp_path / "other.tmp"
    append(new, numbered(0, 10))
    append(foreign, numbered(20, 30))
    reader.follower.follow_new([str(foreign), str(new)], reader.now, 1)
    reader.read()
    reader.commit()
    assert reader.lines == numbered(0, 10).splitlines()
