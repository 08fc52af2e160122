"""Histories of a file system: written, rotated, copied, emptied, edited, restored, away, with clocks that jump and a
forwarder that is killed. Every line arrives once, but for what docs/delivery.md lists.

`HISTORIES=5000 pytest …/test_model.py` tries more of them; a failure names its seed and its steps. On a file system
without handles, as overlayfs is one, `handle_of` finds none.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from logfwd.sources.file import identity
from tests.logfwd.sources.file.follow_harness import Reader, append

HISTORIES = int(os.environ.get("HISTORIES", "40"))
STEPS = 60
NAMES = ("app.log", "b.log", "c-1")
DONE = b'{"job":"done"}\n'


class History:
    """One directory of logs, and a reader that is up or down."""

    def __init__(self, folder: Path, seed: int, *, handles: bool) -> None:
        self.random = random.Random(seed)
        self.handles = handles
        self.folder, self.away = folder / "logs", folder / "away"
        self.folder.mkdir()
        patterns = self.random.choice([("*",), NAMES, ("*.log", "c-1")])
        self.reader = Reader(
            *(self.folder / pattern for pattern in patterns),
            max_open_files=self.random.choice([1, 2, 256]),
            block_bytes=self.random.choice([256, 4096, 1 << 20]),
            max_record_bytes=200,
        )
        self.is_up, self.number, self.jobs = True, 0, 0
        self.written: set[bytes] = set()
        self.may_be_lost: set[bytes] = set()
        self.may_repeat: set[bytes] = set()
        self.steps: list[str] = []

    def run(self) -> None:
        self.reader.turn()  # rotated files from before the first scan count as read
        for _ in range(STEPS):
            step = self.random.choices(list(OPERATIONS), list(OPERATIONS.values()))[0]
            if self.folder.exists() or step in (come_back, look, stop_or_start):
                self.steps.append(step.__name__)
                step(self)
        come_back(self)
        if not self.is_up:
            stop_or_start(self)
        for _ in range(16):
            self.reader.turn(2)
        self.reader.restart()
        self.reader.turn()
        self.judge()

    def judge(self) -> None:
        got = Counter(line for line in self.reader.lines if line != DONE.strip())
        lost = self.written - got.keys() - self.may_be_lost
        repeated = {line for line, times in got.items() if times > 1} - self.may_repeat
        strange = got.keys() - self.written
        assert (sorted(lost), sorted(repeated), sorted(strange)) == ([], [], [])
        assert self.reader.lines.count(DONE.strip()) == self.jobs

    def some_file(self) -> Path:
        return self.folder / self.random.choice(NAMES)

    def lines(self, path: Path) -> set[bytes]:
        return set(path.read_bytes().splitlines()) if path.exists() else set()

    def unread(self, path: Path) -> set[bytes]:
        return self.lines(path) - set(self.reader.lines)

    def deletes(self, path: Path) -> None:
        """A copy of a deleted file is a new one."""
        for copy in self.folder.glob(f"{path.name}.*"):
            self.may_repeat |= self.lines(copy)

    def offsets(self, path: Path) -> list[int]:
        """The committed positions in the file that has this path now."""
        known = [identity.read_mark(mark) for mark in self.reader.positions.values()]
        inode = path.stat().st_ino if path.exists() else 0
        return [each[0].offset for each in known if each and each[1].path == bytes(path) and each[0].inode == inode]

    def set_aside(self, path: Path) -> Path:
        """Make room for a rotated name, as logrotate does; what falls off the end may not have been read."""
        for index in range(7, 0, -1):
            if (old := path.with_name(f"{path.name}.{index}")).exists():
                old.rename(path.with_name(f"{path.name}.{index + 1}"))
        return path.with_name(f"{path.name}.1")


def write(history: History) -> None:
    path, count = history.some_file(), history.random.choice([1, 2, 20, 150])
    put(history, path, count)


def put(history: History, path: Path, count: int) -> None:
    lines = [b"%s %060d" % (os.fsencode(path.name), history.number + each) for each in range(count)]
    history.number += count
    history.written.update(lines)
    append(path, b"\n".join(lines) + b"\n")


def look(history: History) -> None:
    if history.is_up:
        history.reader.turn(history.random.choice([0.1, 1, 7]))


def read_some(history: History) -> None:
    """Read without a commit, or with one."""
    if history.is_up:
        history.reader.scan()
        history.reader.read(history.random.choice([1, 3]))
        if history.random.random() < 0.5:
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
    if (path := history.some_file()).exists():
        rotated = history.set_aside(path)
        path.rename(rotated)
        if history.random.random() < 0.5:  # its writer has not let go of it
            put(history, rotated, history.random.choice([1, 30]))


def copy_and_truncate(history: History) -> None:
    if (path := history.some_file()).exists() and path.stat().st_size:
        shutil.copyfile(path, history.set_aside(path))
        if history.random.random() < 0.3 and history.is_up:
            history.reader.turn(0.1)
        os.truncate(path, 0)


def delete(history: History) -> None:
    if (path := history.some_file()).exists():
        history.may_be_lost |= history.unread(path)
        history.deletes(path)
        path.unlink()


def edit(history: History) -> None:
    """One byte, within the last kilobyte before the position."""
    path = history.some_file()
    offsets = history.offsets(path)
    if path.exists() and len(offsets) == 1 and 5000 < offsets[0] <= path.stat().st_size:
        if history.unread(path) - history.may_be_lost and not history.is_up:
            return
        with path.open("r+b") as file:
            file.seek(offsets[0] - history.random.randrange(2, 1000))
            file.write(b"~")
        history.may_repeat |= history.lines(path)  # a copy of it made later is not known by its tail
        history.written |= history.lines(path)
        history.may_be_lost |= history.lines(path)


def restore(history: History) -> None:
    """The same content under another inode."""
    if (path := history.some_file()).exists() and path.stat().st_size:
        known = any(offset >= 1100 for offset in history.offsets(path))
        if history.is_up or not known or not history.handles:
            history.may_repeat |= history.lines(path)
        history.deletes(path)
        copy = history.folder.parent / "copy"
        shutil.copyfile(path, copy)
        copy.rename(path)


def go_away(history: History) -> None:
    history.folder.rename(history.away)


def come_back(history: History) -> None:
    if history.away.exists():
        history.away.rename(history.folder)


def set_clock(history: History) -> None:
    for path in history.folder.iterdir():
        if history.random.random() < 0.5:
            os.utime(path, (time.time() + history.random.choice([-1e6, -4000, 4000, 1e6]),) * 2)


def job(history: History) -> None:
    """Job results are all alike, and their files are deleted once they were read."""
    if history.is_up and history.handles and str(history.folder / "app.log") not in history.reader.settings.paths:
        path = history.folder / f"{history.jobs}.log"
        path.write_bytes(DONE)
        before = history.reader.lines.count(DONE.strip())
        for _ in range(5):
            history.reader.turn(7)
        history.jobs += history.reader.lines.count(DONE.strip()) - before or 0
        path.unlink()


OPERATIONS: dict[Callable[[History], None], float] = {
    write: 12,
    look: 10,
    read_some: 4,
    stop_or_start: 4,
    rotate: 5,
    copy_and_truncate: 4,
    delete: 1,
    edit: 1,
    restore: 1,
    go_away: 1,
    come_back: 3,
    set_clock: 2,
    job: 1,
}


@pytest.mark.parametrize("handles", [True, False])
def test_every_history_of_a_file_system_gives_each_line_once(
    tmp_path: Path, handles: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not handles:
        monkeypatch.setattr(identity, "handle_of", lambda _: b"")
    first = int(os.environ.get("SEED", "0"))
    for seed in range(first, first + HISTORIES):
        folder = tmp_path / str(seed)
        folder.mkdir()
        history = History(folder, seed, handles=handles)
        try:
            history.run()
        except BaseException:
            print(f"SEED={seed} HISTORIES=1:", *history.steps)
            raise
        finally:
            history.reader.follower.close()
        shutil.rmtree(folder)
