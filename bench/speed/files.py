"""`logbench files`: what thousands of files cost that come and go while few of them are open."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import click

from bench.figures import report
from bench.figures.measure import Usage
from bench.lab.generate import generate_http
from bench.lab.processes import StartFailed, wait_until
from bench.lab.rig import Forwarder, Rig, Setup

STREAM = "files"
FILES_PER_DIRECTORY = 100
SETTLE_SECONDS = 6.0
"""Longer than a forwarder keeps checking freshly written files more often."""
MOST_SAMPLES, LEAST_SAMPLES = 20, 3
LINES_PER_SECOND = 100
ARRIVAL_SECONDS, LOOK_SECONDS = 120.0, 0.002


class Logs:
    """Directories of log files, in the order in which they were made; a record in each file from the beginning."""

    def __init__(self, root: Path, seed: int) -> None:
        self._root, self._dice = root, random.Random(seed)
        self._records, self._directory = generate_http(1 << 40, seed), root
        self.directories: deque[list[Path]] = deque()
        self.names = self.written = 0

    def make(self, count: int) -> None:
        """This many new files."""
        for first in range(0, count, FILES_PER_DIRECTORY):
            self._directory = self._root / f"{self.names:06}"
            self._directory.mkdir()
            self.directories.append([])
            for _ in range(min(FILES_PER_DIRECTORY, count - first)):
                self.append(self.new())

    def delete(self, count: int) -> None:
        """The oldest directories, with this many files."""
        while count > 0:
            paths = self.directories.popleft()
            shutil.rmtree(paths[0].parent)
            count -= len(paths)

    def append(self, path: Path) -> None:
        with path.open("ab") as out:
            out.write(next(self._records) + b"\n")
        self.written += 1

    @property
    def files(self) -> int:
        return sum(map(len, self.directories))

    def any(self) -> Path:
        return self._dice.choice(self._dice.choice(self.directories))

    def new(self) -> Path:
        """The path of a file that is still to be made, in the last directory."""
        self.names += 1
        path = self._directory / f"app{self.names}.log"
        self.directories[-1].append(path)
        return path

    def pause(self) -> float:
        """Seconds until the next line: longer than a linger, and not in time with the forwarder."""
        return self._dice.uniform(0.25, 0.5)


@click.command(short_help="Measure thousands of files that come and go, few of them open.")
@click.option("--files", default=20_000, show_default=True, type=click.IntRange(100), help="Files that are there.")
@click.option("--open", "most_open", default=256, show_default=True, help="Files that the forwarder may hold open.")
@click.option(
    "--rounds",
    default=8,
    show_default=True,
    type=click.IntRange(2),
    help="Rounds; in the first half files are added, in the second half the oldest ones are replaced.",
)
@click.option(
    "--turnover",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="How often all files are replaced in the second half: names that are gone must not add to memory.",
)
@click.option(
    "--seconds", default=10.0, show_default=True, type=click.FloatRange(1), help="Duration of each measurement."
)
@report.seed_option
@report.as_json_option
def files(files: int, most_open: int, rounds: int, turnover: int, seconds: float, seed: int, as_json: bool) -> None:
    """Delay of a new line, CPU and descriptors, as files are added and replaced by others with new names.

    A delay is from the write to the append in the sink: for a line in the file that was written to last, in any of the
    others, and in a new file. CPU is the forwarder's share of one core while nothing is written, and while 100 lines a
    second go to files at random.

    Each round takes about five times --seconds, and as long as the new files take to be read; that is shown, too.
    """
    stream = f'[source]\ntype = "file"\npaths = ["in/{STREAM}/*/*.log"]\nmax_open_files = {most_open}\n'
    rows: list[dict[str, Any]] = []
    with (
        report.workplace(as_json) as (directory, console),
        Rig(directory, sink="log") as rig,
        rig.forwarder(Setup(tables=((STREAM, stream),))) as forwarder,
        console.status("") as status,
    ):
        logs = Logs(forwarder.input(STREAM), seed)
        for number in range(1, rounds + 1):
            status.update(f"round {number} of {rounds}")
            started, before = time.monotonic(), logs.names
            for _ in range(turnover if number > rounds / 2 else 1):
                logs.make(files * 2 // rounds)
                if number > rounds / 2:
                    forwarder.wait_for(logs.written, ARRIVAL_SECONDS)  # what is deleted unread is lost
                    logs.delete(logs.files - files)
            forwarder.wait_for(logs.written, ARRIVAL_SECONDS)
            added = {"new_files": logs.names - before, "new_files_seconds": time.monotonic() - started}
            time.sleep(SETTLE_SECONDS)
            rows.append(added | _measure(rig, forwarder, logs, seconds))
        forwarder.wait_for(logs.written, ARRIVAL_SECONDS)
    if as_json:
        report.emit("files", rows, most_open=most_open, seconds=seconds)
        return
    columns: list[report.Column] = [
        ("files", lambda r: f"{r['files']:,}"),
        ("names so far", lambda r: f"{r['names']:,}"),
        ("new ones, read", lambda r: f"{r['new_files']:,} in {r['new_files_seconds']:.0f} s"),
        *((f"delay, {kind}, median / max", _delay(kind)) for kind in ("last", "any", "new")),
        ("CPU idle", lambda r: f"{r['idle']:.1%}"),
        (f"CPU, {LINES_PER_SECOND} lines/s", lambda r: f"{r['active']:.1%}"),
        ("descriptors", lambda r: str(r["descriptors"])),
        ("RSS, MB", lambda r: f"{r['rss_mb']:.0f}"),
    ]
    report.show(console, f"files that come and go, {most_open} open", columns, rows, upright=True)


def _delay(kind: str) -> Callable[[report.Row], str]:
    def shown(row: report.Row) -> str:
        delays = row["delays_ms"][kind]
        return f"{median(delays):.0f} / {max(delays):.0f} ms"

    return shown


def _measure(rig: Rig, forwarder: Forwarder, logs: Logs, seconds: float) -> dict[str, Any]:
    pid = forwarder.program.pid
    idle = _core_share(pid, seconds, lambda: None)
    last = logs.any()
    delays = {
        "any": list(_delays(rig, logs, logs.any, seconds)),
        "new": list(_delays(rig, logs, logs.new, seconds)),
        "last": list(_delays(rig, logs, lambda: last, seconds)),
    }
    active = _core_share(pid, seconds, lambda: logs.append(logs.any()))
    forwarder.wait_for(logs.written, ARRIVAL_SECONDS)
    return {
        "files": logs.files,
        "names": logs.names,
        "delays_ms": delays,
        "idle": idle,
        "active": active,
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
        "rss_mb": Usage.of(pid).rss_mb,
    }


def _core_share(pid: int, seconds: float, step: Callable[[], None]) -> float:
    """The share of a core that a process takes while a step is done LINES_PER_SECOND times a second."""
    before, started = Usage.of(pid).cpu_seconds, time.monotonic()
    while (passed := time.monotonic() - started) < seconds:
        step()
        time.sleep(1 / LINES_PER_SECOND)
    return (Usage.of(pid).cpu_seconds - before) / passed


def _delays(rig: Rig, logs: Logs, choose: Callable[[], Path], seconds: float) -> Iterator[float]:
    """Milliseconds from writing a line until the sink has appended it, one line after the other."""
    until = time.monotonic() + seconds
    for number in range(MOST_SAMPLES):
        if number >= LEAST_SAMPLES and time.monotonic() > until:
            break
        path, before = choose(), rig.stored_at([STREAM])
        started = time.monotonic()
        logs.append(path)
        if not wait_until(lambda: rig.stored_at([STREAM]) > before, ARRIVAL_SECONDS, every_seconds=LOOK_SECONDS):  # noqa: B023
            raise StartFailed(f"a line in {path} did not arrive within {ARRIVAL_SECONDS:.0f} s")
        yield (time.monotonic() - started) * 1000
        time.sleep(logs.pause())
