"""What the measuring commands read from /proc and compute from it: usage, samples, percentiles, slopes.

CPU seconds are the kernel's count (/proc/PID/stat, in steps of 10 ms), memory is resident memory in 10⁶ bytes.
"""

from __future__ import annotations

import contextlib
import math
import os
import statistics
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

_TICKS = os.sysconf("SC_CLK_TCK")


# -- processes -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Usage:
    """CPU seconds so far, resident memory now and at its peak."""

    cpu_seconds: float
    rss_mb: float
    peak_rss_mb: float

    @classmethod
    def of(cls, pid: int) -> Usage:
        kilobytes = {
            line.split(":")[0]: int(line.split()[1])
            for line in Path(f"/proc/{pid}/status").read_text().splitlines()
            if line.startswith(("VmHWM", "VmRSS"))
        }
        cpu = _cpu_seconds(Path(f"/proc/{pid}/stat"))[1]
        return cls(cpu, kilobytes["VmRSS"] * 1024 / 1e6, kilobytes["VmHWM"] * 1024 / 1e6)


def _cpu_seconds(stat: Path) -> tuple[str, float]:
    """Name and CPU seconds, user and system, of a process or a thread."""
    head, _, tail = stat.read_text().rpartition(")")
    fields = tail.split()
    return head.partition("(")[2], (int(fields[11]) + int(fields[12])) / _TICKS


def thread_cpu_seconds(pid: int) -> dict[str, float]:
    """CPU seconds of each thread, by id and kernel name; the first is the main thread."""
    threads = {}
    for task in sorted(Path(f"/proc/{pid}/task").iterdir(), key=lambda path: int(path.name)):
        with contextlib.suppress(OSError):
            name, seconds = _cpu_seconds(task / "stat")
            threads[f"{task.name} {name}{' (main)' if int(task.name) == pid else ''}"] = seconds
    return threads


@contextlib.contextmanager
def profiled(pid: int, out: Path | None) -> Iterator[str]:
    """Record a speedscope profile of a process inside the block; yields a note about it for the report."""
    import shutil
    import signal
    import subprocess

    found = shutil.which("py-spy")
    if out is None or found is None:
        yield "" if out is None else "no profile: install py-spy (PyPI: py-spy)"
        return
    argv = [found, "record", "--threads", "--native", "-f", "speedscope", "-r", "200", "-o", str(out), "-p", str(pid)]
    recorder = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield f"profile of the forwarder: {out} (opens in speedscope)"
    finally:
        recorder.send_signal(signal.SIGINT)
        recorder.wait(30)


class Sample(NamedTuple):
    """A process's usage at one time; `seconds` count from the start of the sampling."""

    seconds: float
    usage: Usage


class Sampler(threading.Thread):
    """`with Sampler({"forwarder": pid}) as sampler`: samples once a second, into `sampler.samples`."""

    def __init__(self, pids: Mapping[str, int], *, every_seconds: float = 1.0) -> None:
        super().__init__(daemon=True)
        self.samples: dict[str, list[Sample]] = {name: [] for name in pids}
        self._pids, self._every_seconds, self._over = dict(pids), every_seconds, threading.Event()

    def run(self) -> None:
        started = time.monotonic()
        while True:
            for name, pid in self._pids.items():
                with contextlib.suppress(OSError, KeyError):
                    self.samples[name].append(Sample(time.monotonic() - started, Usage.of(pid)))
            if self._over.wait(self._every_seconds):
                return

    def __enter__(self) -> Sampler:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()


# -- arithmetic ----------------------------------------------------------------------------------------------------


def percentile(values: Iterable[float], share: float) -> float:
    """By nearest rank, so the result is a measured value. NaN if there are none."""
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)), 1) - 1] if ordered else math.nan


def slope_per_minute(points: Sequence[tuple[float, float]]) -> float:
    """Least-squares slope over the second half of (seconds, value): the growth once everything is warm."""
    half = points[len(points) // 2 :]
    if len(half) < 2 or half[0][0] == half[-1][0]:
        return math.nan
    return statistics.linear_regression(*zip(*half, strict=True)).slope * 60


def ages_ms(appended: Iterable[tuple[float, int]], *, start_ms: float, records_per_second: float) -> list[float]:
    """Age of every record when it was stored, corrected for coordinated omission.

    `appended` are batches in order: when they were stored, and how many records they hold. The age of record k counts
    from start + k / rate, when it was due, whether or not its writing was held up.
    """
    step, due, ages = 1000 / records_per_second, start_ms, []
    for at_ms, records in appended:
        ages += [at_ms - due - number * step for number in range(records)]
        due += records * step
    return ages
