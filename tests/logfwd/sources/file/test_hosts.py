"""What programs and people do to log files on ordinary hosts: each line once, and what may be a repeat is said."""

from __future__ import annotations

import mmap
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from logfwd.sources.file.tail import NO_SIZE
from logfwd.sources.file.writers import ignore_lease_breaks
from tests.logfwd.sources.file.follow_harness import Reader, append, numbered
from tests.logfwd.sources.file.test_which import expected, said, settled

LINE_BYTES = 61


@pytest.fixture
def _leases() -> Iterator[None]:
    """The kernel tells who has a file open."""
    before = signal.getsignal(signal.SIGIO)
    ignore_lease_breaks()
    yield
    signal.signal(signal.SIGIO, before)


def repeated_bytes(reader: Reader) -> int:
    return (len(reader.lines) - len(set(reader.lines))) * LINE_BYTES


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "app.log"


@pytest.mark.parametrize("is_up", [True, False])
@pytest.mark.parametrize("backup", [True, False])
def test_what_an_editor_saves_by_renaming_it_over_the_file_repeats_no_more_than_is_said(
    log: Path, is_up: bool, backup: bool
) -> None:
    reader = Reader(log)
    append(log, numbered(0, 100))
    reader.turn()
    saved = log.with_name(".app.log.swp")
    saved.write_bytes(log.read_bytes() + numbered(100, 101))
    if backup:
        os.link(log, log.with_name("app.log~"))
    saved.rename(log)
    if not is_up:
        reader.restart()
    settled(reader)
    append(log, numbered(101, 110))
    settled(reader)
    assert sorted(set(reader.lines)) == expected((0, 110))
    assert repeated_bytes(reader) == reader.file_bytes["read_again"]


@pytest.mark.parametrize("is_up", [True, False])
def test_sed_in_place_repeats_no_more_than_is_said(log: Path, is_up: bool) -> None:
    reader = Reader(log)
    append(log, numbered(0, 100))
    reader.turn()
    subprocess.run(["sed", "-i", "s/50$/99/", str(log)], check=True)
    if not is_up:
        reader.restart()
    settled(reader)
    append(log, numbered(100, 110))
    settled(reader)
    assert sorted(set(reader.lines)) == expected((0, 110))
    assert (len(reader.lines) - 110) * LINE_BYTES <= reader.file_bytes["read_again"]


@pytest.mark.usefixtures("_leases")
@pytest.mark.parametrize("pattern", ["app.log", "app.log*"])
def test_what_shred_writes_into_a_rotated_file_is_no_record(tmp_path: Path, log: Path, pattern: str) -> None:
    """logrotate's `shred`: the oldest file is overwritten under its name, and deleted then."""
    reader = Reader(tmp_path / pattern, rotated_wait_seconds=60.0)
    append(log, numbered(0, 100))
    settled(reader)
    oldest = log.rename(f"{log}.1")
    append(log, numbered(100, 200))
    for _ in range(3):
        reader.turn(70)
    with oldest.open("r+b", buffering=0) as file:
        for passes in range(3):
            file.seek(0)
            file.write(os.urandom(100 * LINE_BYTES))
            append(log, numbered(200 + passes, 201 + passes))
            settled(reader)
    subprocess.run(["shred", "-u", str(oldest)], check=True)
    append(log, numbered(203, 210))
    settled(reader)
    reader.restart()
    settled(reader)
    assert reader.lines == expected((0, 210))


@pytest.mark.parametrize("pattern", ["app.log", "app.log*"])
def test_what_stays_in_a_rotated_file_that_was_replaced_in_place_is_read(
    tmp_path: Path, log: Path, pattern: str
) -> None:
    """`cp app.log app.log.1` by a script that keeps one old file, of one that came and went unseen."""
    reader = Reader(tmp_path / pattern)
    append(log, numbered(0, 100))
    settled(reader)
    log.rename(f"{log}.1")
    append(log, numbered(100, 110))
    settled(reader)
    Path(f"{log}.1").write_bytes(numbered(500, 600))
    for _ in range(2):
        settled(reader)
    assert sorted(reader.lines) == expected((0, 110), (500, 600))


@pytest.mark.parametrize("pattern", ["app.log", "app.log*"])
@pytest.mark.parametrize("is_up", [True, False])
def test_what_was_emptied_and_written_anew_before_it_was_rotated_comes_before_its_successor(
    tmp_path: Path, log: Path, pattern: str, is_up: bool
) -> None:
    reader = Reader(tmp_path / pattern)
    append(log, numbered(0, 100))
    settled(reader)
    shutil.copyfile(log, f"{log}.1")
    os.truncate(log, 0)
    append(log, numbered(100, 150))
    log.rename(f"{log}.2")
    append(log, numbered(150, 160))
    if not is_up:
        reader.restart()
    settled(reader)
    assert reader.lines == expected((0, 160))


def test_a_file_that_becomes_a_directory_and_a_file_again(log: Path) -> None:
    reader = Reader(log)
    append(log, numbered(0, 100))
    settled(reader)
    log.unlink()
    log.mkdir()
    append(log / "inside", numbered(500, 510))
    with capture_logs() as logs:
        settled(reader)
    assert [each["path"] for each in said(logs, "file unreadable")] == [str(log)]
    shutil.rmtree(log)
    append(log, numbered(100, 150))
    settled(reader)
    assert reader.lines == expected((0, 150))
    reader.restart()
    settled(reader)
    assert reader.lines == expected((0, 150))


def test_reserved_room_that_is_filled_by_mapped_memory_and_cut_to_size_in_the_end(log: Path) -> None:
    with log.open("w+b") as file:
        os.posix_fallocate(file.fileno(), 0, 1 << 20)
        reader = Reader(log)
        settled(reader)
        at = 0
        with mmap.mmap(file.fileno(), 1 << 20) as view:
            for number in range(20):
                lines = numbered(number * 10, number * 10 + 10)
                view[at : at + len(lines)] = lines
                at += len(lines)
                if number % 3 == 0:
                    settled(reader)
                if number == 10:
                    reader.restart()
        file.truncate(at)  # as the writer closes it
    log.rename(log.with_name("app.log.1"))
    append(log, numbered(200, 220))
    settled(reader)
    assert reader.lines == expected((0, 220))
    assert reader.follower.lag_bytes() == 0
    assert not reader.files


@pytest.mark.parametrize("pattern", ["app.log", "app.log*"])
@pytest.mark.parametrize("is_up", [True, False])
def test_rotation_by_hard_link(tmp_path: Path, log: Path, pattern: str, is_up: bool) -> None:
    """`ln app.log app.log.1`, then a new file is renamed over the old name."""
    reader = Reader(tmp_path / pattern)
    append(log, numbered(0, 50))
    settled(reader)
    for turn in range(1, 4):
        append(log, numbered(turn * 50, turn * 50 + 25))
        if not is_up:
            reader.follower.close()
        for index in range(turn, 0, -1):
            if (old := tmp_path / f"app.log.{index}").exists():
                old.rename(tmp_path / f"app.log.{index + 1}")
        os.link(log, tmp_path / "app.log.1")
        if is_up:
            reader.turn()
        append(tmp_path / "fresh", b"")
        (tmp_path / "fresh").rename(log)
        append(tmp_path / "app.log.1", numbered(turn * 50 + 25, turn * 50 + 50))
        if not is_up:
            reader.restart()
        settled(reader)
    append(log, numbered(200, 210))
    settled(reader)
    assert reader.lines == expected((0, 210))
    assert not reader.files


@pytest.mark.parametrize("is_up", [True, False])
@pytest.mark.parametrize("old_stays", [True, False])
@pytest.mark.parametrize("path", ["current/app.log", "app.log"])
def test_a_mounted_volume_that_is_switched_by_its_data_link(
    tmp_path: Path, is_up: bool, old_stays: bool, path: str
) -> None:
    """A ConfigMap's volume: `..data` leads to the directory of a time, and is replaced at once by a newer link."""

    def publish(name: str, data: bytes) -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "app.log").write_bytes(data)
        (tmp_path / "..data_tmp").symlink_to(name)
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")

    (tmp_path / "current").symlink_to("..data")
    (tmp_path / "app.log").symlink_to("..data/app.log")
    publish("..2026_01_01", numbered(0, 100))
    reader = Reader(tmp_path / path)
    settled(reader)
    assert reader.lines == expected((0, 100))
    if not is_up:
        reader.follower.close()
    publish("..2026_01_02", numbered(0, 120))
    if not old_stays:
        shutil.rmtree(tmp_path / "..2026_01_01")
    if not is_up:
        reader.restart()
    settled(reader)
    reader.turn(70)
    settled(reader)
    append(tmp_path / "..2026_01_02" / "app.log", numbered(120, 130))
    settled(reader)
    assert sorted(set(reader.lines)) == expected((0, 130))
    assert repeated_bytes(reader) == reader.file_bytes["read_again"]


def test_what_is_no_file_is_said_and_holds_up_nothing(tmp_path: Path, log: Path) -> None:
    os.mkfifo(tmp_path / "a.log")
    (tmp_path / "b.log").symlink_to("/dev/zero")
    (tmp_path / "c.log").mkdir()
    (tmp_path / "d.log").symlink_to("/proc/self/status")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(os.path.relpath(tmp_path / "e.log"))
        append(log, numbered(0, 10))
        reader = Reader(tmp_path / "*.log")
        with capture_logs() as logs:
            settled(reader)
            append(log, numbered(10, 20))
            settled(reader)
    assert reader.lines == expected((0, 20))
    reasons = {os.path.basename(each["path"]): each["reason"] for each in said(logs, "file unreadable")}
    assert reasons == {**dict.fromkeys(("a.log", "b.log", "e.log"), "is not a regular file"), "status": NO_SIZE}


NAMES = (
    "new\nline.log",
    "-rf.log",
    "\udcff\udcfe.log",
    " .log",
    "a b\tc.log",
    "[1].log",
    "*.log",
    "ä.log",
    "x" * 251 + ".log",
)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_that_a_file_can_have(tmp_path: Path, name: str) -> None:
    log = tmp_path / name
    reader = Reader(tmp_path / "*.log", path_field="file")
    append(log, numbered(0, 50))
    settled(reader)
    reader.restart()
    append(log, numbered(50, 60))
    settled(reader)
    if len(name) < 250:
        log.rename(tmp_path / f"{name}.1")
        append(log, numbered(60, 70))
    else:
        append(log, numbered(60, 70))
    settled(reader)
    reader.restart()
    settled(reader)
    assert reader.lines == expected((0, 70))


@pytest.mark.parametrize("header_bytes", [0, 200])
def test_files_that_begin_with_a_header_before_anything_else_is_there(tmp_path: Path, header_bytes: int) -> None:
    header = b"#Version: 1.0 %0180d\n" % 0
    reader = Reader(tmp_path / "*.log", header_bytes=header_bytes)
    for number in range(5):
        log = tmp_path / f"u{number}.log"
        log.touch()
        reader.turn()
        append(log, header)
        reader.turn()
    for number in range(5):
        append(tmp_path / f"u{number}.log", numbered(number * 10, number * 10 + 10))
        if number == 2:
            reader.restart()
        settled(reader)
    reader.turn(100)
    settled(reader)
    assert sorted(reader.lines) == sorted([header.rstrip()] * 5 + expected((0, 50)))


@pytest.mark.parametrize("seconds", [0, -86_400, 4_102_444_800])
def test_files_from_1969_1970_and_2100(tmp_path: Path, log: Path, seconds: int) -> None:
    reader = Reader(tmp_path / "app.log*")
    for turn in range(4):
        append(log, numbered(turn * 10, turn * 10 + 10))
        os.utime(log, (seconds, seconds))
        reader.turn()
        if turn == 1:
            log.rename(log.with_name("app.log.1"))
        if turn == 2:
            reader.restart()
    settled(reader)
    assert reader.lines == expected((0, 40))
    assert not reader.files


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("format_", ["text", "json"])
def test_utf_16_without_a_mark_that_is_read_as_utf_8_is_said_once(log: Path, encoding: str, format_: str) -> None:
    reader = Reader(log, format=format_)
    for _ in range(3):
        append(log, "".join(f"line {number}\r\n" for number in range(20)).encode(encoding))
        with capture_logs() as logs:
            settled(reader)
        if not (found := said(logs, "file looks like UTF-16")):
            break
        assert [(each["path"], each["encoding"]) for each in found] == [(str(log), encoding)]
    assert not found
    assert not said(logs, "file looks like UTF-16")
