"""Which records of a run are stored, from the ledger's entries. No I/O.

The sequences of a run (a producer id and epoch on a partition) count its records from 0 without a gap, and a sink
appends only the next sequence. So the entries of a run are merged into intervals of sequences:

* an entry that overlaps another one under another offset was appended *twice*;
* a *hole* before a stored sequence was stored, too: its entries are absent, not its records. A recognised repeat
  closes a hole, as it was stored before;
* entries absent after the last one leave no hole: only the sink itself knows this *tail*, and only the sink knows that
  records which the ledger saw stored are *lost*.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from typing import NamedTuple

from logreceiver.ledger.records import BatchEntry
from streams.records.batch import SEQUENCES

REMEMBERED_ENTRIES = 1024
"""Newest entries of a run whose offsets are remembered: an entry that is written twice is repeated soon."""


class Intervals:
    """Half-open intervals of whole numbers, disjoint and in order."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self.total = 0

    @property
    def first(self) -> int:
        return self._starts[0]

    @property
    def end(self) -> int:
        return self._ends[-1]

    def add(self, start: int, end: int) -> int:
        """Add an interval; returns how much of it was covered before."""
        low = bisect_left(self._ends, start)
        high = bisect_right(self._starts, end)
        if low < high:
            inside = zip(self._starts[low:high], self._ends[low:high], strict=True)
            overlap = sum(max(min(end, other_end) - max(start, other), 0) for other, other_end in inside)
            new_start, new_end = min(start, self._starts[low]), max(end, self._ends[high - 1])
        else:
            overlap, new_start, new_end = 0, start, end
        self._starts[low:high] = [new_start]
        self._ends[low:high] = [new_end]
        self.total += end - start - overlap
        return overlap


class RunKey(NamedTuple):
    """A run as the sink knows it."""

    topic: str
    partition: int
    producer_id: int
    producer_epoch: int


class Coverage:
    """Which sequences of one run the ledger knows to be stored. Sequences wrap at 2³¹; here they do not."""

    def __init__(self) -> None:
        self._covered = Intervals()
        """Of all entries."""
        self._appended = Intervals()
        """Of entries of batches that were appended, not recognised as repeats."""
        self._recent: OrderedDict[tuple[int, int], int] = OrderedDict()
        """First offsets of the newest entries, by first sequence and the one after the last."""
        self._expected: int | None = None
        """The sequence after the highest one seen."""
        self.twice = 0
        self.tail = 0
        self.lost = 0

    def add(self, entry: BatchEntry) -> int:
        """Take an entry; returns how many of its records no earlier entry covered."""
        start = self._unwrapped(entry.base_sequence)
        end = start + entry.records
        self._expected = max(self._expected or 0, end)
        if entry.outcome == "stored" and not self._is_known(start, end, entry.first_offset):
            self.twice += self._appended.add(start, end)
        return entry.records - self._covered.add(start, end)

    def _unwrapped(self, sequence: int) -> int:
        """The number nearest to the expected one that equals this sequence modulo 2³¹."""
        if self._expected is None:
            return sequence
        half = SEQUENCES // 2
        return self._expected + (sequence - self._expected + half) % SEQUENCES - half

    def _is_known(self, start: int, end: int, offset: int) -> bool:
        """The same batch at the same offset: recorded twice, stored once (a topic on LogAppendTime hides repeats)."""
        if self._recent.get((start, end)) == offset:
            return True
        self._recent[start, end] = offset
        if len(self._recent) > REMEMBERED_ENTRIES:
            self._recent.popitem(last=False)
        return False

    def reaches(self, last_sequence: int) -> None:
        """Take the last sequence of this run that the sink itself has."""
        half = SEQUENCES // 2
        beyond = (last_sequence + 1 - self._covered.end + half) % SEQUENCES - half
        self.tail, self.lost = max(beyond, 0), max(-beyond, 0)

    @property
    def in_ledger(self) -> int:
        return self._covered.total

    @property
    def holes(self) -> int:
        """Records before a stored sequence that no entry covers."""
        begin = 0 if self._covered.first >= 0 else -SEQUENCES  # the first entry seen came after a wrap
        return self._covered.end - begin - self._covered.total

    @property
    def begins_late(self) -> bool:
        """True if the run's first records are not in the ledger; then how often it wrapped before is unknown."""
        return self._covered.first != 0

    @property
    def stored(self) -> int:
        return self.in_ledger + self.holes + self.tail - self.lost
