"""Histories of a file system: written, rotated, copied, emptied, edited, restored, inodes used again, devices and boots
that change, directories away, clocks that jump, writers that do not let go, and a forwarder that is killed.

Every line arrives once, but for what docs/delivery.md lists; and that is counted and logged with its size.

`HISTORIES=5000 pytest …/test_model.py` tries more of them, from `SEED` on; a failure names its seed and its steps.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.logfwd.sources.file.history import DONE, History, family_of, file_at, file_of

HISTORIES = int(os.environ.get("HISTORIES", "30"))
STEPS = 60
FOUND = (900222, 950133, 950162, 950199, 950301, 960095)
"""Seeds that found faults, tried whatever else is; in their histories each scan is followed by a read."""


def write(history: History) -> None:
    history.put(history.some_file(), history.random.choice([1, 2, 20, 150]))


def look(history: History) -> None:
    if history.is_up:
        history.turn(history.random.choice([0.1, 1, 7, 70]))


def read_some(history: History) -> None:
    """Read without a commit, or with one; scan without a read, or read without a scan."""
    if history.is_up:
        scans, reads = history.random.choice([(1, 1), (1, 0), (0, 1)]) if history.is_apart else (1, 1)
        if scans:
            history.reader.scan()
            history.note_look()
        if reads:
            history.reader.read(history.random.choice([1, 3]))
        if history.random.random() < 0.5:
            history.reader.commit()


def stop_or_start(history: History) -> None:
    if history.is_up:
        history.kill()
    else:
        history.start()


def reboot(history: History) -> None:
    if history.is_up:
        history.kill()
    close_writers(history)
    history.boot()


def rotate(history: History) -> None:
    if (path := history.some_file()).exists():
        rotated = history.set_aside(path)
        path.rename(rotated)
        if history.random.random() < 0.5:  # its writer has not let go of it
            history.put(rotated, history.random.choice([1, 30]))


def copy_and_truncate(history: History) -> None:
    if (path := history.some_file()).exists() and path.stat().st_size:
        shutil.copyfile(path, history.set_aside(path))
        if history.random.random() < 0.3 and history.is_up:
            history.turn(0.1)
        history.unusual.add(path.name)
        os.truncate(path, 0)
        history.emptied_unseen.add(file_at(path))
        history.looked.pop(path.stat().st_ino, None)


def copy(history: History) -> None:
    """A copy that stays, next to its original: read as a file of its own if `paths` matches it."""
    if (path := history.some_file()).exists() and path.stat().st_size:
        name = history.random.choice(["{}.{}", "copy-{}-of-{}"]).format(path.name, 20 + history.number % 80)
        if path.stat().st_size < 1100 and name.startswith("copy"):
            return  # too little to tell that it is one
        if not (there := history.folder / name).exists():
            shutil.copyfile(path, there)
            history.may_repeat |= history.lines(path)
            history.unusual.add(path.name)
            if history.unread(path):
                history.untold.add(path.name)  # of two lines that nobody has read, neither repeats the other


def empty(history: History) -> None:
    """Emptied without a copy, or shortened before the reader's eyes."""
    if (path := history.some_file()).exists():
        history.destroy(path, emptied=True)
        content = path.read_bytes()
        shorten = history.is_up and len(content) > 2800 and history.random.random() < 0.3
        os.truncate(path, content.index(b"\n", 1400) + 1 if shorten else 0)
        history.may_repeat |= history.lines(path)
        if shorten:
            history.turn(0.1)


def delete(history: History) -> None:
    if (path := history.some_file()).exists():
        history.destroy(path)
        path.unlink()


def make_again(history: History) -> None:
    """A new file takes the name of a deleted one, and mostly its inode; it may begin like it."""
    if (path := history.some_file()).exists():
        content = path.read_bytes()
        history.destroy(path)
        path.unlink()
        if history.random.random() < 0.3:
            path.write_bytes(content)
            history.may_repeat |= history.lines(path)
        history.put(path, history.random.choice([1, 20]))
        history.comes_back(path)


def edit(history: History) -> None:
    """A byte before the position."""
    path = history.some_file()
    offsets = history.offsets(path)
    if not path.exists() or len(offsets) != 1 or not 0 < offsets[0] <= path.stat().st_size:
        return
    if history.unread(path) - history.may_be_lost and not history.is_up:
        return
    before = history.lines(path)
    with path.open("r+b") as file:
        file.seek(history.random.randrange(offsets[0] - 1))
        if file.read(1) == b"\n":
            return
        file.seek(-1, os.SEEK_CUR)
        file.write(b"~")
        end = file.tell()
    history.unusual.add(path.name)
    history.edited.add(path.name)
    history.written |= history.lines(path)
    history.may_repeat |= history.lines(path)  # a copy of it made later is not known by its tail
    history.rewritten |= history.lines(path) ^ before
    history.may_be_lost |= history.lines(path) | before
    if history.is_up:
        history.turn(0.1)
    others = [each for each in history.files() if each != path and family_of(each.name) == path.name]
    if not history.is_up or any(end <= each.stat().st_size < 1100 for each in others):
        # a copy that is made before anybody looks, or that is short and was made before, is not known by anything
        history.untold.add(path.name)


def restore(history: History) -> None:
    """The same content under another inode."""
    if (path := history.some_file()).exists() and path.stat().st_size:
        known = min(history.offsets(path), default=0) >= 1100  # of several, some are of what it had before
        if history.is_up or not known or not history.handles:
            history.may_repeat |= history.lines(path)
        shutil.copyfile(path, history.other)
        history.destroy(path)
        history.other.rename(path)
        history.comes_back(path)


def go_away(history: History) -> None:
    history.folder.rename(history.away)


def come_back(history: History) -> None:
    if history.away.exists():
        history.away.rename(history.folder)


def remount(history: History) -> None:
    """The file system gets another device number, which it can only while nobody has a file open."""
    close_writers(history)
    go_away(history)
    for _ in range(4 if history.is_up else 0):
        history.turn(100)
    if not history.is_up or not history.reader.open_files:
        history.device += 1
    come_back(history)
    for path in history.files() if not history.handles else ():
        history.unusual.add(family_of(path.name))
        history.may_repeat |= history.lines(path)  # a short one is read again, and so is a short copy made later


def set_clock(history: History) -> None:
    for path in history.folder.iterdir():
        if history.random.random() < 0.5:
            os.utime(path, (time.time() + history.random.choice([-1e6, -4000, 4000, 1e6]),) * 2)


def open_writer(history: History) -> None:
    history.writers.append(history.some_file().open("ab", buffering=0))


def close_writers(history: History) -> None:
    while history.writers:
        history.writers.pop().close()


def write_on(history: History) -> None:
    """Writers go on in files that were renamed, or deleted since they opened them."""
    for writer in history.writers:
        status = os.fstat(writer.fileno())
        name = family_of(Path(writer.name).name)
        data = history.new_lines(name, history.random.choice([1, 20]))
        if not status.st_nlink:
            lines = set(data.splitlines())
            if history.is_up and history.is_open(writer):
                file = file_of(writer.fileno())
                known = history.only_open.get(file, (name, set[bytes]()))[1]
                history.only_open[file] = name, known | lines
            else:
                history.lose(name, lines, None)
        writer.write(data)


def job(history: History) -> None:
    """Job results are all alike, and their files are deleted once they were read."""
    if history.is_up and history.handles and str(history.folder / "app.log") not in history.reader.settings.paths:
        path = history.folder / f"{history.jobs}.log"
        path.write_bytes(DONE + b"\n")
        for _ in range(5):
            history.turn(14)
        while history.reader.is_crowded:  # it waits for its turn to be opened
            history.turn(1)
        history.jobs += 1
        path.unlink()


OPERATIONS: dict[Callable[[History], None], float] = {
    write: 12,
    look: 10,
    read_some: 4,
    stop_or_start: 4,
    reboot: 0.5,
    rotate: 5,
    copy_and_truncate: 4,
    copy: 0.5,
    empty: 0.5,
    delete: 1,
    make_again: 1,
    edit: 1,
    restore: 1,
    go_away: 1,
    come_back: 3,
    remount: 0.5,
    set_clock: 2,
    open_writer: 1,
    write_on: 2,
    close_writers: 1,
    job: 1,
}
WHILE_AWAY = (come_back, look, stop_or_start, reboot)


def run(history: History) -> None:
    history.turn(1)  # rotated files from before the first scan count as read
    for _ in range(STEPS):
        step = history.random.choices(list(OPERATIONS), list(OPERATIONS.values()))[0]
        if history.folder.exists() or step in WHILE_AWAY:
            history.steps.append(step.__name__)
            step(history)
    come_back(history)
    close_writers(history)
    if not history.is_up:
        history.start()
    for _ in range(40):
        history.turn(3)
    history.kill()
    history.start()
    for _ in range(8):
        history.turn(2)


@pytest.mark.parametrize("handles", [True, False])
def test_every_history_of_a_file_system_gives_each_line_once(
    tmp_path: Path, handles: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = int(os.environ.get("SEED", "0"))
    for seed in (*FOUND, *range(first, first + HISTORIES)):
        is_apart = seed not in FOUND
        folder = tmp_path / str(seed)
        folder.mkdir()
        with monkeypatch.context() as patch, capture_logs() as logs:
            history = History(folder, seed, handles=handles, is_apart=is_apart, patch=patch)
            history.logs = logs
            try:
                run(history)
                history.judge()
            except BaseException:
                print(f"SEED={seed} HISTORIES=1:", *history.steps)
                raise
            finally:
                history.close()
        shutil.rmtree(folder)
