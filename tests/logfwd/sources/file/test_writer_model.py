"""What chaos does to files (bench/chaos/writer.py), only faster: a reader by hand, and a clock that jumps.

Every record arrives once and in order, but for those written between a copy and a truncate. `HISTORIES=5000 pytest …`
tries more; a failure names its seed and its steps.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from bench.chaos import writer as chaos
from bench.chaos.writer import Writer
from bench.lab.oracle import judge
from tests.logfwd.sources.file.follow_harness import Reader

HISTORIES = int(os.environ.get("HISTORIES", "25"))
STEPS = 60
FOUND = (900063, 950083, 960080)
"""Seeds that found faults, tried whatever else is; in their histories each scan is followed by a read."""


class History:
    """A writer, and a reader that is up or down; `is_apart`: something may happen between its scan and its reading."""

    def __init__(self, folder: Path, seed: int, *, is_apart: bool) -> None:
        self.dice = random.Random(seed)
        self.writer = Writer(folder / "a", "a", seed=1)
        self.reader = Reader(
            folder / "a" / self.dice.choice(["a.log", "*.log"]),
            max_open_files=self.dice.choice([1, 2, 256]),
            block_bytes=self.dice.choice([2048, 1 << 20]),
        )
        self.is_up = self.is_mounted = True
        self.is_apart = is_apart
        self.steps: list[str] = []
        self.times: dict[str, int] = {}

    def run(self) -> None:
        self.reader.turn()
        for _ in range(STEPS):
            step = self.dice.choices(list(OPERATIONS), list(OPERATIONS.values()))[0]
            self.steps.append(step.__name__)
            step(self)
            self.pass_time()
        if not self.is_mounted:
            unmount_or_mount(self)
        if not self.is_up:
            stop_or_start(self)
        for _ in range(16):
            self.reader.turn(2)
        found = judge("a", self.writer.sent, self.reader.lines, source="a", may_be_lost=self.writer.may_be_lost)
        assert found.exact, (found, dict(self.reader.files))

    def stored(self) -> int:
        """How many of the first records are stored."""
        found = {int(line.split(b",", 1)[0][5:]) for line in self.reader.lines}
        return next(number for number in count() if number not in found)

    def pass_time(self) -> None:
        """A second for each step: the kernel's clock stands still for longer than one takes."""
        place = self.writer.folder if self.is_mounted else self.writer.folder.with_name("a.away")
        for path in place.iterdir():
            if path.stat().st_mtime_ns != self.times.get(path.name):
                self.times[path.name] = len(self.steps) * 1_000_000_000
                os.utime(path, ns=(self.times[path.name],) * 2)


def write(history: History) -> None:
    history.writer._write(history.dice.choice([1, 2, 10, 60]))


def look(history: History) -> None:
    if history.is_up:
        history.reader.turn(history.dice.choice([0.1, 1, 7]))


def read_some(history: History) -> None:
    if history.is_up:
        scans, reads = history.dice.choice([(1, 1), (1, 0), (0, 1)]) if history.is_apart else (1, 1)
        if scans:
            history.reader.scan()
        if reads:
            history.reader.read(history.dice.choice([1, 3]))
        if history.dice.random() < 0.5:
            history.reader.commit()


def stop_or_start(history: History) -> None:
    if history.is_up:
        history.reader.follower.close()
        history.reader.uncommitted = []
    else:
        history.reader.restart()
        history.reader.turn(0.1)
    history.is_up = not history.is_up


def rotate(history: History) -> None:
    if history.is_mounted:
        history.writer.rotate()


def copy(history: History) -> None:
    if history.is_mounted:
        history.writer.copy(history.stored(), rotated_name=history.dice.random() < 0.5)


def copy_and_truncate(history: History) -> None:
    if history.is_mounted:
        between = max(history.dice.random() - 0.9, 0.0)
        history.writer.copy_and_truncate(goes_on=history.dice.random() < 0.5, between=between)


def make_hole(history: History) -> None:
    history.writer.make_hole(history.dice.random())


def edit(history: History) -> None:
    if history.is_mounted:
        history.writer.edit(history.dice.random(), at_end=history.dice.random() < 0.5)


def recycle(history: History) -> None:
    if history.is_mounted:
        history.writer.recycle(history.stored())


def unmount_or_mount(history: History) -> None:
    if history.is_mounted:
        if history.is_up:
            history.reader.turn(0.1)  # a copy that goes away unseen comes after what is written meanwhile
        history.writer.unmount(leaves_empty=history.dice.random() < 0.5)
    else:
        history.writer.mount()
    history.is_mounted = not history.is_mounted


OPERATIONS: dict[Callable[[History], None], float] = {
    write: 14,
    look: 10,
    read_some: 4,
    stop_or_start: 4,
    rotate: 2,
    copy: 2,
    copy_and_truncate: 3,
    make_hole: 2,
    edit: 2,
    recycle: 2,
    unmount_or_mount: 3,
}


def test_whatever_chaos_does_to_files_gives_each_record_once_and_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chaos, "HOLE_BYTES", 20_000)
    first = int(os.environ.get("SEED", "0"))
    for seed in (*FOUND, *range(first, first + HISTORIES)):
        folder = tmp_path / str(seed)
        folder.mkdir()
        history = History(folder, seed, is_apart=seed not in FOUND)
        try:
            history.run()
        except BaseException:
            print(f"SEED={seed} HISTORIES=1:", *history.steps)
            raise
        finally:
            history.reader.follower.close()
        shutil.rmtree(folder)
