"""Following files, apart from rotation: where to start, what to skip, how many at once, what to remember."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from logfwd.sources.position import Mark
from tests.logfwd.sources.file.follow_harness import Reader, append, numbered


def events(logs: list[MutableMapping[str, Any]], event: str) -> list[object]:
    return [log.get("reason", "") for log in logs if log["event"] == event]


def test_the_unfinished_last_line_waits_and_survives_a_restart(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    reader = Reader(log)
    append(log, b"whole\nunfini")
    for _ in range(10):
        reader.turn()
    assert reader.lines == [b"whole"]
    assert [mark.offset for mark in reader.positions.values()] == [6]
    reader.restart()
    reader.turn()
    append(log, b"shed\n")
    assert reader.turn() == [b"unfinished"]


@pytest.mark.parametrize("step", [1, 7, 40])
def test_a_short_file_is_recognised_at_every_length(tmp_path: Path, step: int) -> None:
    log = tmp_path / "a.log"
    reader = Reader(log)
    for start in range(0, 60, step):
        append(log, numbered(start, start + step))
        reader.turn()
        reader.restart()
    reader.turn()
    assert reader.lines == numbered(0, (59 // step + 1) * step).splitlines()
    assert len(reader.positions) == 1


def test_uncommitted_blocks_are_read_again(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    append(log, numbered(0, 100))
    reader = Reader(log, block_bytes=256, max_record_bytes=200)
    reader.scan()
    reader.read(3)
    reader.commit()
    reader.read(4)
    reader.restart()
    reader.turn()
    assert reader.lines == numbered(0, 100).splitlines()


def test_start_at_end_applies_only_to_files_of_the_first_start(tmp_path: Path) -> None:
    log, later = tmp_path / "a.log", tmp_path / "b.log"
    append(log, b"old\nold and unfini")
    reader = Reader(tmp_path / "*.log", start_at="end")
    assert reader.turn() == []
    append(log, b"shed\nnew\n")
    append(later, b"later\n")
    assert sorted(reader.turn()) == [b"later", b"new", b"old and unfinished"]


def test_start_at_end_is_remembered_even_if_nothing_was_read(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    append(log, numbered(0, 50))
    reader = Reader(log, start_at="end")
    assert reader.turn() == []
    append(log, b"written while stopped\n")
    reader.restart()
    assert reader.turn() == [b"written while stopped"]


def test_the_first_scan_is_stored_before_anything_is_read(tmp_path: Path) -> None:
    """Else a file that was there, and is rotated during a restart, would be one from before the first scan."""
    names = [tmp_path / "a.log", tmp_path / "b.log"]
    for number, path in enumerate(names):
        append(path, numbered(10 * number, 10 * number + 10))
    reader = Reader(*names)
    reader.scan()
    reader.read(1)
    reader.commit()
    reader.restart()
    for path in names:
        path.rename(f"{path}.1")
    reader.turn()
    assert sorted(reader.lines) == numbered(0, 20).splitlines()


def test_rotated_files_in_a_directory_that_a_glob_leads_to_count_as_read_at_the_first_scan(tmp_path: Path) -> None:
    """They are not found by a later scan, and then taken for new ones."""
    (tmp_path / "pod").mkdir()
    for number, name in enumerate(("app.log.1", "app.log")):
        append(tmp_path / "pod" / name, numbered(10 * number, 10 * number + 10))
    reader = Reader(tmp_path / "*" / "*.log")
    reader.turn()
    for _ in range(3):
        reader.turn(10)
    assert reader.lines == numbered(10, 20).splitlines()


def test_a_file_with_several_names_is_read_once(tmp_path: Path) -> None:
    append(tmp_path / "a.log", numbered(0, 5))
    (tmp_path / "link.log").symlink_to(tmp_path / "a.log")
    os.link(tmp_path / "a.log", tmp_path / "hard.log")
    reader = Reader(tmp_path / "*.log", tmp_path / "a.log")
    for _ in range(8):
        reader.turn()
    assert reader.lines == numbered(0, 5).splitlines()


@pytest.mark.parametrize("restarted", [False, True])
def test_a_linked_file_is_followed_through_the_rotations_of_its_target(tmp_path: Path, restarted: bool) -> None:
    links, pods = tmp_path / "links", tmp_path / "pods"
    links.mkdir()
    pods.mkdir()
    log = pods / "0.log"
    (links / "app.log").symlink_to(log)
    append(log, numbered(0, 5))
    reader = Reader(links / "*.log")
    reader.turn()
    append(log, numbered(5, 10))
    for start in (10, 20):
        log.rename(pods / f"0.log.20240101-{start}0000")
        append(log, numbered(start, start + 10))
    if restarted:
        reader.restart()
    reader.turn()
    assert reader.lines == numbered(0, 30).splitlines()


def test_globs_descend_into_directories_and_exclude_leaves_files_out(tmp_path: Path) -> None:
    folder = tmp_path / "x" / "y"
    folder.mkdir(parents=True)
    append(folder / "a.log", b"a\n")
    append(folder / "debug.log", b"debug\n")
    append(tmp_path / "x" / "b.log", b"b\n")
    reader = Reader(f"{tmp_path}/**/*.log", exclude=("debug*", f"{tmp_path}/x/b.*"))
    assert reader.turn() == [b"a"]


def test_unreadable_paths_are_logged_once_and_other_files_are_still_read(tmp_path: Path) -> None:
    (tmp_path / "folder.log").mkdir()
    (tmp_path / "dangling.log").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "fifo.log")
    (tmp_path / "loop.log").symlink_to("loop.log")
    append(tmp_path / "good.log", b"good\n")
    with capture_logs() as logs:
        reader = Reader(tmp_path / "folder.log", tmp_path / "*.log")
        for _ in range(3):
            reader.turn()
        assert reader.lines == [b"good"]
        reasons = events(logs, "file unreadable")
        append(tmp_path / "nothing", b"found\n")
        assert reader.turn() == [b"found"]
    assert len(reasons) == 4
    assert {"is a directory", "is not a regular file"} < set(reasons)
    assert len(events(logs, "file readable again")) == 1


@contextlib.contextmanager
def without_rights() -> Iterator[None]:
    """Act as an ordinary user, because the superuser may read everything."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_file_without_permission_is_read_once_it_has_it() -> None:
    with tempfile.TemporaryDirectory() as folder, capture_logs() as logs:
        Path(folder).chmod(0o755)
        log = Path(folder, "a.log")
        append(log, b"secret\n")
        log.chmod(0)
        with without_rights():
            reader = Reader(log)
            for _ in range(3):
                assert reader.turn() == []
        log.chmod(0o644)
        with without_rights():
            assert reader.turn() == [b"secret"]
    assert [each["event"] for each in logs] == ["file unreadable", "file readable again"]


def test_a_read_error_is_logged_once_and_reading_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(tmp_path / "bad.log", b"bad\n")
    append(tmp_path / "good.log", b"good\n")
    bad, pread = (tmp_path / "bad.log").stat().st_ino, os.pread

    def failing(fd: int, size: int, offset: int) -> bytes:
        if os.fstat(fd).st_ino == bad:
            raise OSError(5, "Input/output error")
        return pread(fd, size, offset)

    reader = Reader(tmp_path / "*.log")
    with capture_logs() as logs:
        with monkeypatch.context() as patch:
            patch.setattr(os, "pread", failing)
            for _ in range(3):
                reader.turn()
            assert reader.lines == [b"good"]
        assert reader.turn() == [b"bad"]
    assert [log["event"] for log in logs] == ["file unreadable", "file readable again"]


def test_five_hundred_files_are_read_with_ten_open(tmp_path: Path) -> None:
    paths = [tmp_path / f"app{number:03}x.log" for number in range(500)]
    reader = Reader(tmp_path / "*.log", max_open_files=10)
    for round_ in range(3):
        for number, path in enumerate(paths):
            append(path, b"%d of %d\n" % (round_, number))
        reader.turn()
        assert reader.open_files <= 10
        if round_ == 1:
            reader.restart()
    assert sorted(reader.lines) == sorted(b"%d of %d" % (r, number) for r in range(3) for number in range(500))


def test_a_closed_file_that_is_renamed_is_found_again(tmp_path: Path) -> None:
    reader = Reader(tmp_path / "*.log", max_open_files=2)
    for name in ("a", "b", "c", "d"):
        append(tmp_path / f"{name}.log", numbered(0, 3))
        reader.turn()
    append(tmp_path / "a.log", b"last words\n")
    (tmp_path / "a.log").rename(tmp_path / "a.log.1")
    append(tmp_path / "a.log", b"first words\n")
    assert sorted(reader.turn()) == [b"first words", b"last words"]


def test_files_take_turns_block_by_block(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        append(tmp_path / f"{name}.log", numbered(0, 100))
    reader = Reader(tmp_path / "*.log", block_bytes=1024, max_record_bytes=512)
    reader.scan()
    reader.read(1)  # that the scan was made
    keys = [block.key for block in reader.read(9)]
    assert keys[:3] == keys[3:6] == keys[6:9]
    assert len(set(keys)) == 3


def test_the_lag_counts_uncommitted_bytes(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    append(log, numbered(0, 10))
    reader = Reader(log)
    reader.scan()
    assert reader.follower.lag_bytes() == 610
    reader.read()
    assert reader.follower.lag_bytes() == 610
    reader.commit()
    assert reader.follower.lag_bytes() == 0
    append(log, b"more\n")
    reader.scan()
    assert reader.follower.lag_bytes() == 5


def test_a_directory_that_comes_back_within_the_hour_is_not_read_again(tmp_path: Path) -> None:
    folder, away = tmp_path / "logs", tmp_path / "away"
    folder.mkdir()
    append(folder / "a.log", numbered(0, 10))
    reader = Reader(folder / "*.log")
    reader.turn()
    folder.rename(away)
    reader.restart()
    for _ in range(5):
        reader.turn(600)
    away.rename(folder)
    append(folder / "a.log", b"after\n")
    assert reader.turn() == [b"after"]


def test_the_position_of_a_file_that_does_not_return_is_forgotten(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    append(log, numbered(0, 10))
    reader = Reader(log)
    reader.turn()
    log.rename(tmp_path.parent / f"{tmp_path.name}.moved")
    for _ in range(10):
        reader.turn(4 * 86_400)
    assert reader.positions == {}


def test_the_position_of_a_rotated_file_is_kept_as_long_as_the_file_exists(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    append(log, numbered(0, 10))
    reader = Reader(log)
    reader.turn()
    log.rename(tmp_path / "a.log.1")
    for _ in range(10):
        reader.turn(600)
    assert (len(reader.positions), reader.open_files) == (1, 0)
    append(tmp_path / "a.log.1", b"a late line\n")
    assert reader.turn(10) == [b"a late line"]


def test_an_invalid_mark_is_dropped(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    append(log, b"one\n")
    reader = Reader(log)
    reader.positions = {"key": Mark(offset=3, detail=b"\xc1 nonsense")}
    reader.restart()
    assert reader.turn() == [b"one"]
    assert "key" not in reader.positions


def test_names_that_are_not_text_are_followed(tmp_path: Path) -> None:
    log = tmp_path / os.fsdecode(b"bad\xff.log")
    append(log, b"one\n")
    reader = Reader(tmp_path / "*.log")
    reader.turn()
    reader.restart()
    append(log, b"two\n")
    assert reader.turn() == [b"two"]


def test_a_file_without_a_size_is_said_and_not_read_over_and_over(tmp_path: Path) -> None:
    reader = Reader("/proc/self/status", "/proc/version", tmp_path / "a.log")
    append(tmp_path / "a.log", b"line\n")
    with capture_logs() as logs:
        for _ in range(5):
            reader.turn()
    assert reader.lines == [b"line"]
    said = {log["path"] for log in logs if "no size" in str(log.get("reason"))}
    assert said == {"/proc/self/status", "/proc/version"}
