"""Rotated and deleted files while a program has them open for writing, and when it has closed them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from logfwd.sources.file import followed
from logfwd.sources.file.writers import has_writer, ignore_lease_breaks
from tests.logfwd.sources.file.follow_harness import Reader, append, numbered


@pytest.fixture(autouse=True)
def _leases(tmp_path: Path) -> Iterator[None]:
    before = signal.getsignal(signal.SIGIO)
    ignore_lease_breaks()
    append(tmp_path / "probe", b"")
    fd = os.open(tmp_path / "probe", os.O_RDONLY)
    known = has_writer(fd)
    os.close(fd)
    (tmp_path / "probe").unlink()
    if known is None:
        pytest.skip("no leases on this file system, or for this user")
    yield
    signal.signal(signal.SIGIO, before)


@pytest.mark.parametrize("ending", ["rename", "unlink"])
def test_a_writer_is_seen_whatever_the_name_and_its_end_is_too(tmp_path: Path, ending: str) -> None:
    log = tmp_path / "app.log"
    append(log, numbered(0, 1))
    fd = os.open(log, os.O_RDONLY)
    assert has_writer(fd) is False
    with log.open("ab"):
        if ending == "rename":
            log.rename(tmp_path / "app.log.1")
        else:
            log.unlink()
        assert has_writer(fd) is True
    assert has_writer(fd) is False
    os.close(fd)


def test_a_lease_that_is_broken_does_not_end_the_process(tmp_path: Path) -> None:
    program = (
        "import fcntl, os, sys\n"
        "from logfwd.sources.file.writers import ignore_lease_breaks\n"
        "ignore_lease_breaks()\n"
        "fd = os.open(sys.argv[1], os.O_RDONLY)\n"
        "fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)\n"
        "print('leased', flush=True); sys.stdin.readline()\n"
        "fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK); print('alive', flush=True)\n"
    )
    log = tmp_path / "app.log"
    append(log, b"")
    argv = [sys.executable, "-c", program, str(log)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "leased\n"
        with pytest.raises(BlockingIOError):  # the kernel tells the holder by SIGIO
            os.open(log, os.O_WRONLY | os.O_NONBLOCK)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "alive\n"


@pytest.mark.parametrize("ending", ["rename", "unlink"])
def test_a_rotated_file_is_read_as_long_as_its_writer_has_it_open_however_silent(tmp_path: Path, ending: str) -> None:
    log = tmp_path / "app.log"
    reader = Reader(log)
    with log.open("ab", buffering=0) as writer:
        writer.write(numbered(0, 10) + b"half")
        reader.turn()
        if ending == "rename":
            log.rename(tmp_path / "elsewhere")
        else:
            log.unlink()
        append(log, numbered(20, 30))
        assert reader.turn() == numbered(20, 30).splitlines()  # the successor does not wait for the half line
        for minute in range(3):
            reader.turn(600)
            writer.write(b" of %d\nhalf" % minute)
            assert len(reader.turn()) == 1
        assert reader.open_files == 2
    reader.turn(2)
    assert reader.turn(2) == [b"half"] or reader.lines[-1] == b"half"
    reader.turn(2)
    assert reader.open_files == 1


def test_a_deleted_file_with_a_silent_writer_is_let_go_of_after_an_hour_and_said(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    reader = Reader(log)
    with log.open("ab", buffering=0) as writer, capture_logs() as logs:
        writer.write(numbered(0, 10))
        reader.turn()
        log.unlink()
        reader.turn()
        reader.turn(followed.WRITTEN_SECONDS - 10)
        assert reader.open_files == 1
        reader.turn(20)
        reader.turn()
    assert reader.open_files == 0
    assert reader.files == {"let_go": 1}
    assert [each["bytes"] for each in logs if each["event"] == "let go of a file that may still be written"] == [0]


def test_deleted_files_use_no_more_of_the_disk_than_max_deleted_bytes(tmp_path: Path) -> None:
    reader = Reader(tmp_path / "*.log", max_deleted_bytes=1 << 20)
    with contextlib.ExitStack() as stack:
        for number in range(4):
            log = tmp_path / f"{number}.log"
            writer = stack.enter_context(log.open("ab", buffering=0))
            writer.write(numbered(number * 10_000, number * 10_000 + 8000))
            reader.turn()
            log.unlink()
            reader.turn()
        assert (reader.open_files, reader.files) == (2, {"let_go": 2})
        writer.write(b"more\n")
        assert reader.turn() == [b"more"]
