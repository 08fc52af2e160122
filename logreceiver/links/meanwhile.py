"""What a partition has stored since a batch was first refused for its records: is it the batch's fault, or the sink's?

A broker answers troubles of its own as it answers records that it cannot use. Only where it stores others' batches
meanwhile is the refused one to blame. No decision of the receiver depends on this; the forwarder is told.
"""

from __future__ import annotations

from collections import Counter, OrderedDict

Partition = tuple[str, int]
Stamp = tuple[int, int, int]
"""Producer id, producer epoch and base sequence."""

MAX_REFUSED = 10_000
"""Batches that are remembered; of one that is forgotten it is said that nothing was stored meanwhile."""


class Meanwhile:
    """Counts what is stored by partition, and remembers where the count stood when a batch was refused."""

    def __init__(self) -> None:
        self._stored: Counter[Partition] = Counter()
        self._refused: OrderedDict[tuple[Partition, Stamp], int] = OrderedDict()

    def stored(self, partition: Partition, stamp: Stamp) -> None:
        """A batch was stored."""
        self._stored[partition] += 1
        if self._refused:
            self._refused.pop((partition, stamp), None)

    def refused(self, partition: Partition, stamp: Stamp) -> int:
        """A batch was refused for its records: how many the partition has stored since it first was."""
        first = self._refused.setdefault((partition, stamp), self._stored[partition])
        self._refused.move_to_end((partition, stamp))
        if len(self._refused) > MAX_REFUSED:
            self._refused.popitem(last=False)
        return self._stored[partition] - first
