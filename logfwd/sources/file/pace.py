"""When to list files again: the more CPU it costs, the less often; and when to read again. Decides, reads no clock."""

from __future__ import annotations

from math import inf

SCAN_SHARE, URGENT_SCAN_SHARE = 0.01, 0.05
"""The share of a core that regular scans, and scans after a change, may take. Time spent waiting for the interpreter or
a disk does not count."""

TRICKLE_SECONDS = 0.02
"""Least time from a read that finds less than half of what it might to the next: files that are written line by line
are read in larger pieces. What was written when nothing was read for so long is read at once."""


class Reads:
    """When files that were written to are read next. `at` is the earliest time for it."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self.at = -inf

    def done(self, began: float, found_bytes: int, *, woken: bool) -> None:
        """Note a read of up to `most_bytes`. One that nothing was written for and that found nothing does not count."""
        if found_bytes >= self._most_bytes // 2:
            self.at = began
        elif found_bytes or woken:
            self.at = began + TRICKLE_SECONDS


class Pace:
    """The times of the next scans of one source."""

    def __init__(self, scan_seconds: float) -> None:
        self._scan_seconds = scan_seconds
        self._last_cpu_seconds = 0.0
        self._scan_at = self._urgent_scan_at = 0.0

    def next_scan(self, *, wanted: bool) -> float:
        """When the next scan is due, a regular one or one that is wanted because something has changed."""
        return min(self._urgent_scan_at, self._scan_at) if wanted else self._scan_at

    def scanned(self, began: float, ended: float, cpu_seconds: float) -> None:
        """Note a scan.

        CPU time beyond that of the scan before does not count: one that releases a large deleted file makes the kernel
        free it, which costs CPU once.
        """
        cost = min(cpu_seconds, self._last_cpu_seconds)
        self._last_cpu_seconds = cpu_seconds
        soonest = ended + (ended - began)  # so that reading gets its turn, however slow the disk is
        self._scan_at = max(soonest, began + self._scan_seconds, began + cost / SCAN_SHARE)
        self._urgent_scan_at = max(soonest, ended + cost / URGENT_SCAN_SHARE)
