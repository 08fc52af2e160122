"""What processes used, by the kernel's own account, and sums over several runs."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """CPU seconds so far, resident memory now and at its peak (MB = 2²⁰ bytes)."""

    cpu_seconds: float
    rss_mb: float
    peak_rss_mb: float

    @classmethod
    def of(cls, pid: int) -> Usage:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        sizes = (int(status[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
        return cls((int(fields[11]) + int(fields[12])) / _TICKS, *sizes)


def median_of(results: Sequence[T], figure: Callable[[T], float]) -> float:
    return statistics.median(map(figure, results))


def slope_per_minute(seconds: Sequence[float], values: Sequence[float]) -> float:
    """How fast a value grows, by least squares."""
    return 60 * statistics.linear_regression(seconds, values).slope
