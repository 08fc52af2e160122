"""Records for the measuring commands: one generated file, read in a loop at full speed or at a set rate.

To a forwarder each copy is a different file, with its own inode and a first record that no other copy has. Copies are
named like the rotated files of one log (`http.log.1`, `http.log.2` …), so that they are read one after the other.
"""

from __future__ import annotations

import os
import threading
import time
from array import array
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path

from bench.lab.generate import write_http

BASE_RECORDS = 500_000
BASE_BYTES = 300_000_000
FILE_BYTES = 128_000_000
"""A paced load moves on to a new file at this size."""
TICK_SECONDS = 0.002

_numbers = count(1)
"""Numbers copies and rotations, so that no name is used twice."""


def _same(text: bytes) -> bytes:
    return text


@dataclass(frozen=True)
class Form:
    """How a program writes a record: what it says, and the line around it."""

    content: Callable[[bytes], bytes] = _same
    line: Callable[[bytes], bytes] = _same

    def __call__(self, record: bytes) -> bytes:
        return self.line(self.content(record))


JSON_LINES = Form()


@dataclass(frozen=True)
class Base:
    """The generated file, and where each record of it begins (and the last one ends).

    `content_bytes` are those of the lines' contents, each with a newline.
    """

    path: Path
    starts: array[int] = field(repr=False)
    form: Form = JSON_LINES
    content_bytes: int = 0

    @classmethod
    def generate(cls, path: Path, records: int, *, seed: int, record_bytes: int) -> Base:
        with path.open("wb") as out:
            write_http(out, records, seed, record_bytes=record_bytes)
        starts = _starts(path)
        return cls(path, starts, content_bytes=starts[-1])

    def first(self, records: int) -> Base:
        """The beginning of the generated file."""
        starts = self.starts[: records + 1]
        return Base(self.path, starts, content_bytes=starts[-1])

    def written(self, path: Path, form: Form) -> Base:
        """The same records as another program would write them."""
        content_bytes = 0
        with self.path.open("rb") as records, path.open("wb") as out:
            for record in islice(records, self.records):
                content = form.content(record[:-1])
                content_bytes += len(content) + 1
                out.write(form.line(content) + b"\n")
        return Base(path, _starts(path), form, content_bytes)

    @property
    def records(self) -> int:
        return len(self.starts) - 1

    @property
    def size(self) -> int:
        return self.starts[-1]

    def copy(self, target: Path, number: int) -> Path:
        """Copy the records into another file; the first record is replaced by one with the copy's number.

        The copy is on disk when this returns, so that no measurement shares the disk with its writing.
        """
        with self.path.open("rb") as source, target.open("wb") as out:
            left = self.size
            while left:
                left -= os.sendfile(out.fileno(), source.fileno(), None, left)
            digits = self.starts[1] - 1 - len(self.form(b'{"copy":""}'))
            os.pwrite(out.fileno(), self.form(b'{"copy":"%0*d"}' % (digits, number)), 0)
            os.fsync(out.fileno())
        return target


def _starts(path: Path) -> array[int]:
    starts, end = array("Q", [0]), 0
    with path.open("rb") as lines:
        for line in lines:
            end += len(line)
            starts.append(end)
    return starts


def split_records(records: int, record_bytes: int) -> tuple[int, int]:
    """(records of a base file, copies): about `records` in total, without a file of that size."""
    most = min(BASE_RECORDS, BASE_BYTES // record_bytes)
    copies = -(-records // most)
    return -(-records // copies), copies


class Feed:
    """Full speed: puts whole copies into a directory and removes those that have been read."""

    def __init__(self, base: Base, directory: Path) -> None:
        self.base, self.directory = base, directory
        self._staged: deque[Path] = deque()
        self._placed: deque[tuple[int, Path]] = deque()  # records up to a copy's end
        self.sent = 0

    def stage(self, copies: int) -> None:
        """Make copies where the forwarder does not see them, before the clock runs."""
        for _ in range(copies):
            number = next(_numbers)
            self._staged.append(
                self.base.copy(self.directory.parent / f"{self.directory.name}.staged.{number}", number)
            )

    def place(self, copies: int = 1) -> None:
        """Let the forwarder see this many staged copies."""
        for _ in range(copies):
            staged = self._staged.popleft()
            path = self.directory / f"http.log.{staged.suffix[1:]}"
            staged.rename(path)
            self.sent += self.base.records
            self._placed.append((self.sent, path))

    def remove(self, acknowledged: int) -> None:
        """Remove copies whose records are stored."""
        while self._placed and self._placed[0][0] <= acknowledged:
            self._placed.popleft()[1].unlink()

    def keep_ahead(self, acknowledged: int) -> None:
        """Keep the loop going: two copies that are not stored yet, one more staged."""
        self.remove(acknowledged)
        while len(self._placed) < 2:
            if not self._staged:
                self.stage(1)
            self.place()
        if not self._staged:
            self.stage(1)


class Load(threading.Thread):
    """A set rate, open loop: record k is written once start + k / rate has passed, whatever became of earlier ones.

    The kernel copies them from the base file, so writing costs little compared with the measured work. The file is
    rotated by rename at a certain size, as on a server.
    """

    def __init__(self, base: Base, path: Path, records_per_second: float) -> None:
        super().__init__(daemon=True)
        self.records_per_second = records_per_second
        self.start_ms = 0.0
        self.sent = 0
        self.behind_seconds = 0.0
        """The longest delay of a record's writing."""
        self._base, self._path = base, path
        self._rotated: deque[tuple[int, Path]] = deque()
        self._over = threading.Event()

    def run(self) -> None:
        self.start_ms, started = time.time() * 1000, time.monotonic()
        while not self._over.is_set():
            self._write_file(started)
            if not self._over.is_set():
                rotated = self._path.with_name(f"{self._path.name}.{next(_numbers)}")
                self._path.rename(rotated)
                self._rotated.append((self.sent, rotated))

    def _write_file(self, started: float) -> None:
        out = os.open(self._path, os.O_WRONLY | os.O_CREAT)
        try:
            with self._base.path.open("rb") as source:
                while os.lseek(out, 0, os.SEEK_END) < FILE_BYTES and not self._over.wait(TICK_SECONDS):
                    now = time.monotonic() - started
                    self.behind_seconds = max(self.behind_seconds, now - self.sent / self.records_per_second)
                    self._write(source.fileno(), out, int(now * self.records_per_second) + 1)
        finally:
            os.close(out)

    def _write(self, source: int, out: int, due: int) -> None:
        base = self._base
        while self.sent < due:
            first = self.sent % base.records
            last = min(first + due - self.sent, base.records)
            offset, end = base.starts[first], base.starts[last]
            while offset < end:
                offset += os.sendfile(out, source, offset, end - offset)
            self.sent += last - first

    def remove(self, acknowledged: int) -> None:
        """Remove rotated files whose records are stored."""
        while self._rotated and self._rotated[0][0] <= acknowledged:
            self._rotated.popleft()[1].unlink()

    def stop(self) -> None:
        self._over.set()
        self.join()
