"""The writer of log lines: what it does when they cannot be written, and that it tells of it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from streams.descriptors import wait_readable
from streams.telemetry import logwriter
from streams.telemetry.logwriter import LogWriter


class Reader:
    """The other end of a pipe."""

    def __init__(self) -> None:
        self.end, self.writers_end = os.pipe()
        self.told: list[int] = []
        self.writer = LogWriter(self.writers_end, self._tell)
        self.writer.setFormatter(logging.Formatter("%(message)s"))

    def _tell(self, lines: int) -> None:
        self.told.append(lines)
        self.writer.write(f"dropped {lines}")

    def fill(self) -> None:
        os.set_blocking(self.writers_end, False)
        try:
            while os.write(self.writers_end, b"." * 4096):
                pass
        except BlockingIOError:
            os.set_blocking(self.writers_end, True)

    def read_until(self, text: bytes) -> bytes:
        found, deadline = b"", time.monotonic() + 60
        while text not in found:
            assert wait_readable([self.end], max(deadline - time.monotonic(), 0)), found[-200:]
            found += os.read(self.end, 65536)
        return found.lstrip(b".")


@pytest.fixture
def reader() -> Iterator[Reader]:
    one = Reader()
    yield one
    os.set_blocking(one.end, False)
    try:
        while os.read(one.end, 65536):  # lets its thread go on
            pass
    except BlockingIOError:
        pass


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.001)


def test_lines_are_written_in_their_order(reader: Reader) -> None:
    for number in range(1000):
        reader.writer.emit(logging.makeLogRecord({"msg": f"line {number}"}))
    expected = b"".join(b"line %d\n" % number for number in range(1000))
    assert reader.read_until(b"line 999\n") == expected
    assert reader.writer.dropped == 0


def test_a_caller_never_waits_and_what_finds_no_room_is_dropped_counted_and_told(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logwriter, "MAX_WAITING_BYTES", 1000)
    reader.fill()
    for number in range(200):
        reader.writer.write(f"line {number:3}")  # 9 bytes with its end
    assert reader.writer.dropped == 200 - 1000 // 9
    assert reader.read_until(b"line   1\n").startswith(b"line   0\ndropped 89\nline   1\n")
    eventually(lambda: reader.told == [89])
    reader.writer.write("and on")
    reader.read_until(b"and on\n")
    assert reader.told == [89]


def test_a_descriptor_that_others_made_non_blocking_loses_no_line(reader: Reader) -> None:
    reader.fill()
    os.set_blocking(reader.writers_end, False)
    for number in range(100):
        reader.writer.write(f"line {number}")
    assert reader.read_until(b"line 99\n").count(b"line") == 100
    assert reader.writer.dropped == 0


def test_a_record_that_cannot_be_shown_is_dropped(reader: Reader) -> None:
    reader.writer.emit(logging.makeLogRecord({"msg": "%d", "args": ("not a number",)}))
    assert reader.writer.dropped == 1


def test_lines_that_nobody_can_take_are_dropped_and_a_flush_ends() -> None:
    end, writers_end = os.pipe()
    os.close(end)
    writer = LogWriter(writers_end, lambda _: None)
    for number in range(10):
        writer.write(f"line {number}")
    eventually(lambda: writer.dropped == 10)
    writer.flush()
    os.close(writers_end)


def test_a_disk_that_has_room_again_gets_a_whole_line_after_a_torn_one(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    script = """
import os, resource, signal
from streams.telemetry.logwriter import LogWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (15, resource.RLIM_INFINITY))
writer = LogWriter(1, lambda lines: writer.write(f"dropped {lines}"))
for number in range(4):
    writer.write(f"line {number:4}")
writer.flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
writer.write("line again")
writer.flush()
"""
    path = tmp_path_factory.mktemp("torn") / "out"
    with path.open("wb") as out:
        subprocess.run([sys.executable, "-c", script], stdout=out, check=True, timeout=60)
    assert path.read_text() == "line    0\nline \nline again\ndropped 3\n"


def test_a_forked_process_begins_with_no_lines_of_its_parent(reader: Reader) -> None:
    reader.fill()
    for _ in range(3):
        reader.writer.write("the parent's")
    child = os.fork()
    if not child:
        os._exit(reader.writer._queue.qsize())
    assert os.waitpid(child, 0)[1] == 0
    reader.writer.write("the end")
    assert reader.read_until(b"end\n").count(b"the parent's\n") == 3
