"""The last values of a duration, kept next to its histogram, for percentiles that can be compared.

A Prometheus histogram answers "how many were below 5 ms", exact to one bucket. The durations of two compared streams
differ by less than a bucket, so the last values are kept as well, at most `WINDOW` per stream (80 KB): the percentiles
in the API and the demo are observed values, not guesses within a bucket.
"""

from __future__ import annotations

import math
import time
from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, TypedDict

from prometheus_client.metrics import Histogram

WINDOW = 10_000
MANY_NEW = WINDOW // 5
"""From this many new values on, sorting all of them is cheaper than removing the replaced ones one by one."""


RECENT_SECONDS = 300
MARK_SECONDS = 5
"""How far apart the moments are from which on values count as recent."""


class Percentiles(TypedDict):
    """In seconds, by nearest rank, so each is an observed value; None where there are no values."""

    median: float | None
    p95: float | None
    p99: float | None


class Recent(Percentiles):
    """Of the values of the last `seconds`, as far as the window has them; `count` is how many these are."""

    seconds: int
    count: int


class Summary(Percentiles):
    """`count` covers all values, the percentiles cover the window."""

    count: int
    recent: Recent


class Values(TypedDict):
    """`count` covers all values so far, and is the number to ask from next; `seconds` are the last values, in order."""

    count: int
    seconds: list[float]


class Window:
    """The last observed values, at most `WINDOW` of them.

    The hot path only adds. The caller of `summary` pays for sorting, and starts from the last caller's order: a page
    that asks every second has a few hundred values inserted, not ten thousand sorted.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.count = 0
        self._clock = clock
        self._values = array("d")
        self._marks: deque[tuple[float, int]] = deque(maxlen=RECENT_SECONDS // MARK_SECONDS + 1)
        """Moments, and how many values there were before each."""
        self._next_mark = -math.inf
        self._all, self._recent = _Order(), _Order()
        self._before, self._before_count = array("d"), 0
        """The values as of the last summary."""

    def add(self, value: float) -> None:
        if (now := self._clock()) >= self._next_mark:
            self._marks.append((now, self.count))
            self._next_mark = now + MARK_SECONDS
        if len(self._values) < WINDOW:
            self._values.append(value)
        else:
            self._values[self.count % WINDOW] = value
        self.count += 1

    def since(self, count: int) -> list[float]:
        """The values after the first `count`, in order, as far as the window still has them."""
        first = max(count, self._first)
        return [self._values[number % WINDOW] for number in range(first, self.count)]

    def summary(self) -> Summary:
        """Percentiles of the window and of its recent values."""
        self._all.move(self._first, self.count, self._values, self._before)
        if (first := self._first_recent()) > self._first:
            self._recent.move(first, self.count, self._values, self._before)
            values = self._recent.values
        else:
            self._recent, values = _Order(), self._all.values
        if self.count != self._before_count:
            self._before, self._before_count = self._values[:], self.count
        recent = Recent(seconds=RECENT_SECONDS, count=len(values), **_percentiles(values))
        return Summary(count=self.count, **_percentiles(self._all.values), recent=recent)

    @property
    def _first(self) -> int:
        """The number of the oldest value that is here."""
        return self.count - len(self._values)

    def _first_recent(self) -> int:
        since = self._clock() - RECENT_SECONDS
        return next((number for moment, number in self._marks if moment >= since), self.count)


class _Order:
    """The values of a window from one number on, in order of size."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self._first = self._end = 0

    def move(self, first: int, end: int, values: array[float], before: array[float]) -> None:
        """Hold the values from `first` to `end`; those that go are taken from the window as it was `before`."""
        gone = range(self._first, min(first, self._end))
        new = range(max(first, self._end), end)
        if max(len(new), len(gone)) > MANY_NEW:
            self.values = sorted(values[number % WINDOW] for number in range(first, end))
        elif new or gone:
            for number in gone:
                del self.values[bisect_left(self.values, before[number % WINDOW])]
            self.values.extend(values[number % WINDOW] for number in new)
            self.values.sort()  # one run and a few values: merged, not sorted
        self._first, self._end = first, end


def _percentiles(ordered: list[float]) -> Percentiles:
    if not ordered:
        return Percentiles(median=None, p95=None, p99=None)
    median, p95, p99 = (ordered[math.ceil(share * len(ordered)) - 1] for share in (0.5, 0.95, 0.99))
    return Percentiles(median=median, p95=p95, p99=p99)


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
