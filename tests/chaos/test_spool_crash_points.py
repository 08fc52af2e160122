"""The spool at every point at which kill -9 or a power loss can leave another disk: nothing confirmed is ever missing.

A real process is stopped before each of its system calls that changes a file; what the files hold there is what
kill -9 would leave. For a power loss, everything that was written and not synced is there, is not, or is there in
part, by the sector, as the dice say. Names of files are taken to be on disk at once.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from logfwd.backlog import Backlog
from logfwd.spool import Spool
from streams import recordbatch
from tests.support import syscalls
from tests.support.spools import RECORDS_IN_A_BATCH, accept, backlog_of, balanced, fill
from tests.support.syscalls import Call

SECTOR_BYTES = 512
TWIN = "pq-stream"
Files = dict[str, bytes]


@pytest.fixture(autouse=True)
def can_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    if reason := syscalls.reason_not_to():
        pytest.skip(reason)
    monkeypatch.setattr("logfwd.spool.RESERVE_BYTES", 4096)  # hundreds of spools are opened here


@dataclass
class Point:
    """The disk at one moment, and what the process had said by then."""

    call: str
    killed: Files
    power_lost: Files
    said: dict[str, int]


@dataclass
class Recorder:
    """Takes a Point before every call that changes a file of the directory."""

    directory: Path
    said_fd: int
    dice: random.Random
    points: list[Point] = field(default_factory=list)
    _durable: dict[int, bytes] = field(default_factory=dict)
    _said: dict[str, int] = field(default_factory=lambda: {"handed": 0, "accepted": 0, "leaving": 0})
    _unread: bytes = b""

    def __post_init__(self) -> None:
        for found in self.directory.iterdir():
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
        lost = {name: self._torn(name, content) for name, content in killed.items()}
        if not self.points or (killed, self._said) != (self.points[-1].killed, self.points[-1].said):
            self.points.append(Point(f"{call.name} {Path(call.file).name}", killed, lost, dict(self._said)))

    def _files(self) -> Files:
        return {
            found.name: found.read_bytes()
            for found in self.directory.iterdir()
            if found.is_file() and not found.name.endswith((".reserve", "-shm"))
        }

    def _torn(self, name: str, content: bytes) -> bytes:
        """What a power loss may leave: each sector as it was synced, or as it was written since."""
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


def record(path: Path, seed: int, *arguments: str) -> list[Point]:
    """Run the worker and stop it at every point."""
    read_fd, write_fd = os.pipe2(os.O_NONBLOCK)
    recorder = Recorder(path.parent, read_fd, random.Random(seed))
    try:
        argv = [sys.executable, "-m", "tests.support.spool_worker", str(path), *arguments]
        assert syscalls.watch(argv, recorder.at_call, stdout=write_fd) == 0
    finally:
        os.close(read_fd)
        os.close(write_fd)
    return recorder.points


def laid_out(points: list[Point]) -> Iterator[tuple[str, Point, Path]]:
    """Each point's files, as after kill -9 and as after a power loss, in memory: what is checked is not fsync here."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    for kind, which in (("kill -9", "killed"), ("power loss", "power_lost")):
        for number, point in enumerate(points):
            with tempfile.TemporaryDirectory(dir=memory) as directory:
                for name, content in getattr(point, which).items():
                    Path(directory, name).write_bytes(content)
                yield (
                    f"{kind} at point {number} of {len(points)}, before {point.call}",
                    point,
                    Path(directory, "http.spool"),
                )


async def records_of(spool: Spool, backlog: Backlog) -> list[int]:
    """The numbers of all waiting records, in order; BatchCorrupt if one is not whole."""
    return [
        int((record.value or b"").split(b":")[1].split(b",")[0])
        for row in backlog.rows
        for record in recordbatch.iterate(await spool.payload(row), max_bytes=1 << 24)
    ]


async def check(point: Point, path: Path, stamps: dict[tuple[int, int, int], int]) -> None:
    """The promises, on one disk; then work goes on there."""
    async with Spool(path) as spool:
        original, twin = backlog_of(spool), backlog_of(spool, TWIN, drops=True)
        position = spool.positions["file"].offset * RECORDS_IN_A_BATCH if spool.positions else 0
        assert point.said["accepted"] <= position <= point.said["handed"]
        waiting = await records_of(spool, original)
        dead = original.totals.dead_lettered
        assert waiting == list(range(position - len(waiting), position))
        assert original.totals.acknowledged + dead == position - len(waiting) <= point.said["leaving"]
        twins = await records_of(spool, twin)
        assert twins == list(range(position - len(twins), position))
        assert balanced(original)
        assert balanced(twin)
        assert spool.repeats_possible == set()
        at = position - len(waiting)
        for row in original.rows:
            run = original.runs[row.run]
            for part in range(row.record_count if row.base_sequence is not None else 0):
                stamp = (run.producer_id, run.producer_epoch, (row.base_sequence or 0) + part)
                assert stamps.setdefault(stamp, at + part) == at + part
            at += row.record_count
        await accept(spool, position // RECORDS_IN_A_BATCH, original, twin)
    assert not list(path.parent.glob("*.damaged-*"))


@pytest.mark.slow
def test_at_every_point_of_its_life_a_spool_survives_kill_9_and_power_loss(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    seed = random.randrange(1 << 32)
    points = record(site / "http.spool", seed)
    assert len(points) > 200
    stamps: dict[tuple[int, int, int], int] = {}

    async def check_all() -> None:
        for where, point, path in laid_out(points):
            try:
                await check(point, path, stamps)
            except AssertionError as error:
                raise AssertionError(f"{where}, seed {seed}") from error

    asyncio.run(check_all())
    print(f"{len(points)} points, kill -9 and power loss at each: all recovered")


@pytest.mark.slow
def test_at_every_point_of_replacing_a_damaged_file_nothing_whole_is_lost(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    path = site / "http.spool"
    asyncio.run(fill(path, padding=3000))
    with path.open("r+b") as file:
        file.write(b"damaged")
    points = record(path, 1, "only-open")
    assert len(points) > 20

    async def check_all() -> None:
        for where, _, copy in laid_out(points):
            async with Spool(copy) as spool:
                backlog = backlog_of(spool)
                assert await records_of(spool, backlog) == list(range(9, 60)), where
                assert spool.positions["file"].offset == 20
                assert balanced(backlog)

    asyncio.run(check_all())
    print(f"{len(points)} points while a damaged file is replaced: all recovered")
