"""The last values of a duration, kept next to its histogram, for percentiles that can be compared.

A Prometheus histogram answers "how many were below 5 ms", exact to one bucket. The durations of two compared streams
differ by less than a bucket, so the last values are kept as well, at most `WINDOW` per stream (80 KB): the percentiles
in the API and the demo are observed values, not guesses within a bucket.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from typing import NamedTuple, TypedDict

from prometheus_client.metrics import Histogram

WINDOW = 10_000
MANY_NEW = WINDOW // 5
"""From this many new values on, sorting all of them is cheaper than removing the replaced ones one by one."""


class Summary(TypedDict):
    """`count` covers all values, the percentiles cover the window, in seconds; None before the first value."""

    count: int
    median: float | None
    p95: float | None
    p99: float | None


class Values(TypedDict):
    """`count` covers all values so far, and is the number to ask from next; `seconds` are the last values, in order."""

    count: int
    seconds: list[float]


class Window:
    """The last observed values, at most `WINDOW` of them.

    The hot path only adds. The caller of `summary` pays for sorting, and starts from the last caller's order: a page
    that asks every second has a few hundred values inserted, not ten thousand sorted.
    """

    def __init__(self) -> None:
        self.count = 0
        self._values = array("d")
        self._ordered: list[float] = []
        self._ordered_from = array("d")
        self._ordered_count = 0

    def add(self, value: float) -> None:
        if len(self._values) < WINDOW:
            self._values.append(value)
        else:
            self._values[self.count % WINDOW] = value
        self.count += 1

    def since(self, count: int) -> list[float]:
        """The values after the first `count`, in order, as far as the window still has them."""
        first = max(count, self.count - len(self._values), 0)
        return [self._values[number % WINDOW] for number in range(first, self.count)]

    def summary(self) -> Summary:
        """Percentiles by nearest rank, so each is an observed value."""
        ordered = self._in_order()
        if not ordered:
            return Summary(count=0, median=None, p95=None, p99=None)
        median, p95, p99 = (ordered[math.ceil(share * len(ordered)) - 1] for share in (0.5, 0.95, 0.99))
        return Summary(count=self.count, median=median, p95=p95, p99=p99)

    def _in_order(self) -> list[float]:
        new = self.count - self._ordered_count
        if new > MANY_NEW:
            self._ordered = sorted(self._values)
        elif new:
            ordered, before = self._ordered, self._ordered_from
            places = [number % WINDOW for number in range(self._ordered_count, self.count)]
            for place in places:
                if place < len(before):
                    del ordered[bisect_left(ordered, before[place])]
            ordered.extend(self._values[place] for place in places)
            ordered.sort()  # one run and a few values: merged, not sorted
        if new:
            self._ordered_from, self._ordered_count = self._values[:], self.count
        return self._ordered


class WindowedChild(NamedTuple):
    """One child of a histogram, with its stream's window."""

    histogram: Histogram
    window: Window

    def observe(self, value: float) -> None:
        self.histogram.observe(value)
        self.window.add(value)


class WindowedHistogram:
    """A histogram that also keeps the last values of each stream. The first label is the stream."""

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        self._windows: dict[str, Window] = {}

    def labels(self, stream: str, *others: str) -> WindowedChild:
        return WindowedChild(self._histogram.labels(stream, *others), self._windows.setdefault(stream, Window()))

    def summary(self, stream: str) -> Summary:
        return self._windows.get(stream, Window()).summary()

    def since(self, stream: str, count: int) -> Values | None:
        """A stream's values after its first `count`; None for a stream without any."""
        window = self._windows.get(stream)
        return None if window is None else Values(count=window.count, seconds=window.since(count))

    def forget(self, stream: str) -> None:
        self._windows.pop(stream, None)
