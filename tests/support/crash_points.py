"""Every state of the disk that kill -9 or a power loss can leave while a program runs.

A real process is stopped before each of its system calls that changes a file; the files then hold what kill -9 would
leave. For a power loss, everything written and not yet synced is on disk, missing, or there in part, sector by sector,
as the dice decide. Names of files are assumed to be on disk at once, or, if `names_can_be_lost`, in the order of their
changes: the last ones since the directory was synced may be undone.

The program prints on stdout, as lines `WORD NUMBER`, what may be on disk and what is.
"""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import syscalls
from tests.support.chaos import sampled
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
    names_can_be_lost: bool
    points: list[Point] = field(default_factory=list)
    _held: dict[int, int] = field(default_factory=dict)
    """By inode, an open descriptor: so the inode of a deleted file is not used again, and its content can be read."""
    _durable: dict[int, bytes] = field(default_factory=dict)
    _names: list[dict[str, int]] = field(default_factory=list)
    """The inode of each name, when the directory was last synced and after every change since."""
    _said: Counter[str] = field(default_factory=Counter)
    _unread: bytes = b""

    def __post_init__(self) -> None:
        self._names = [self._look()]
        self._durable = {inode: self._content(inode) for inode in self._held}

    def at_call(self, call: Call) -> None:
        self._listen()
        names = self._look()
        if call.done:
            if call.file == str(self.directory):
                self._names = [names]
            elif call.file.startswith(str(self.directory)) and os.path.isfile(call.file):
                inode = os.stat(call.file).st_ino
                self._durable[inode] = self._content(inode)
            return
        if call.file and not call.file.startswith(str(self.directory)):
            return
        if names != self._names[-1]:
            self._names.append(names)
        killed = {name: self._content(inode) for name, inode in names.items()}
        on_disk = self.dice.choice(self._names) if self.names_can_be_lost else names
        lost = {name: self._torn(inode) for name, inode in on_disk.items()}
        if not self.points or (killed, self._said) != (self.points[-1].killed, self.points[-1].said):
            self.points.append(Point(f"{call.name} {Path(call.file).name}", killed, lost, Counter(self._said)))

    def close(self) -> None:
        for descriptor in self._held.values():
            os.close(descriptor)

    def _look(self) -> dict[str, int]:
        names = {}
        for found in self.directory.rglob("*"):
            if found.is_file() and not found.name.endswith(PASSED_OVER):
                inode = names[str(found.relative_to(self.directory))] = found.stat().st_ino
                if inode not in self._held:
                    self._held[inode] = os.open(found, os.O_RDONLY)
        return names

    def _content(self, inode: int) -> bytes:
        descriptor = self._held[inode]
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0)

    def _torn(self, inode: int) -> bytes:
        """What a power loss may leave: each sector as it was last synced, or as it was written since."""
        content, durable = self._content(inode), self._durable.get(inode, b"")
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


def record(argv: Sequence[str], directory: Path, seed: int, *, names_can_be_lost: bool = False) -> list[Point]:
    """Run a program that uses the directory, stopping it at every point, until it ends."""
    read_fd, write_fd = os.pipe2(os.O_NONBLOCK)
    recorder = Recorder(directory, read_fd, random.Random(seed), names_can_be_lost)
    try:
        assert syscalls.watch(argv, recorder.at_call, stdout=write_fd) == 0
    finally:
        recorder.close()
        os.close(read_fd)
        os.close(write_fd)
    return recorder.points


def check_each(points: list[Point], seed: int, check: Callable[[Point, Path], Awaitable[None]]) -> None:
    """Check the files of each point; a failure says which point of which seed it was."""

    async def all_of_them() -> None:
        for where, point, directory in laid_out(points):
            try:
                await check(point, directory)
            except Exception as error:
                raise AssertionError(f"{where}, seed {seed}") from error

    asyncio.run(all_of_them())


def laid_out(points: list[Point]) -> Iterator[tuple[str, Point, Path]]:
    """Files of points, of long lists a sample: as after kill -9 and as after a power loss.

    In memory, since syncing is not what is tested.
    """
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    for kind, which in (("kill -9", "killed"), ("power loss", "power_lost")):
        for number, point in sampled(list(enumerate(points))):
            with tempfile.TemporaryDirectory(dir=memory) as directory:
                for name, content in getattr(point, which).items():
                    path = Path(directory, name)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)
                yield f"{kind} at point {number} of {len(points)}, before {point.call}", point, Path(directory)
