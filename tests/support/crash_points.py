"""Every state of the disk that kill -9 or a power loss can leave while a program runs.

A real process is stopped before each of its system calls that changes a file; the files then hold what kill -9 would
leave. For a power loss, everything written and not yet synced is on disk, missing, or there in part, sector by sector,
as the dice decide. Names of files are assumed to be on disk at once.

The program prints on stdout, as lines `WORD NUMBER`, what may be on disk and what is.
"""

from __future__ import annotations

import os
import random
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import syscalls
from tests.support.syscalls import Call

SECTOR_BYTES = 512
PASSED_OVER = (".reserve", "-shm")
Files = dict[str, bytes]


@dataclass
class Point:
    """The disk at one moment, and the last number that the program had printed with each word by then, or 0."""

    call: str
    killed: Files
    power_lost: Files
    said: Counter[str]


@dataclass
class Recorder:
    """Takes a Point before every call that changes a file in the directory or below it."""

    directory: Path
    said_fd: int
    dice: random.Random
    points: list[Point] = field(default_factory=list)
    _durable: dict[int, bytes] = field(default_factory=dict)
    _said: Counter[str] = field(default_factory=Counter)
    _unread: bytes = b""

    def __post_init__(self) -> None:
        for found in filter(Path.is_file, self.directory.rglob("*")):
            self._durable[found.stat().st_ino] = found.read_bytes()

    def at_call(self, call: Call) -> None:
        self._listen()
        if call.done:
            if call.file.startswith(str(self.directory)) and os.path.isfile(call.file):
                self._durable[os.stat(call.file).st_ino] = Path(call.file).read_bytes()
            return
        if call.file and not call.file.startswith(str(self.directory)):
            return
        killed = self._files()
        self._forget_deleted_files()
        lost = {name: self._torn(name, content) for name, content in killed.items()}
        if not self.points or (killed, self._said) != (self.points[-1].killed, self.points[-1].said):
            self.points.append(Point(f"{call.name} {Path(call.file).name}", killed, lost, Counter(self._said)))

    def _files(self) -> Files:
        return {
            str(found.relative_to(self.directory)): found.read_bytes()
            for found in self.directory.rglob("*")
            if found.is_file() and not found.name.endswith(PASSED_OVER)
        }

    def _forget_deleted_files(self) -> None:
        """Their inodes may be used again, and what was synced of them is not on disk then."""
        there = {found.stat().st_ino for found in self.directory.rglob("*")}
        self._durable = {inode: content for inode, content in self._durable.items() if inode in there}

    def _torn(self, name: str, content: bytes) -> bytes:
        """What a power loss may leave: each sector as it was last synced, or as it was written since."""
        durable = self._durable.get((self.directory / name).stat().st_ino, b"")
        if content == durable:
            return content
        size = self.dice.choice((len(content), len(durable)))
        sectors = []
        for start in range(0, size, SECTOR_BYTES):
            source = self.dice.choice((content, durable))[start : min(start + SECTOR_BYTES, size)]
            sectors.append(source.ljust(min(SECTOR_BYTES, size - start), b"\0"))
        return b"".join(sectors)

    def _listen(self) -> None:
        while True:
            try:
                data = os.read(self.said_fd, 65536)
            except BlockingIOError:
                break
            if not data:
                break
            self._unread += data
        *lines, self._unread = self._unread.split(b"\n")
        for line in lines:
            word, number = line.split()
            self._said[word.decode()] = int(number)


def record(argv: Sequence[str], directory: Path, seed: int) -> list[Point]:
    """Run a program that uses the directory, stopping it at every point, until it ends."""
    read_fd, write_fd = os.pipe2(os.O_NONBLOCK)
    recorder = Recorder(directory, read_fd, random.Random(seed))
    try:
        assert syscalls.watch(argv, recorder.at_call, stdout=write_fd) == 0
    finally:
        os.close(read_fd)
        os.close(write_fd)
    return recorder.points


def laid_out(points: list[Point]) -> Iterator[tuple[str, Point, Path]]:
    """Each point's files, as after kill -9 and after a power loss; in memory, since syncing is not what is tested."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    for kind, which in (("kill -9", "killed"), ("power loss", "power_lost")):
        for number, point in enumerate(points):
            with tempfile.TemporaryDirectory(dir=memory) as directory:
                for name, content in getattr(point, which).items():
                    path = Path(directory, name)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)
                yield f"{kind} at point {number} of {len(points)}, before {point.call}", point, Path(directory)
