"""The partitions of an embedded log, by topic and number. Their files are open only while they are in use.

There may be many thousands of partitions, and few file descriptors: those that were used last keep their files open,
the others are opened again when a batch comes. What a partition knows stays in memory either way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import structlog

from logreceiver.sinks.log import files
from logreceiver.sinks.log.partition import Partition
from logreceiver.sinks.log.retention import Retention
from streams import descriptors

_SHARE_OF_DESCRIPTORS = 16
"""A partition in use has two, so an eighth of them is for the log."""
_LEAST_AWAKE = 4

log = structlog.get_logger("logreceiver.log")


class Partitions:
    """Blocking; used by one thread at a time, but for `make`."""

    def __init__(self, directory: Path, *, max_segment_bytes: int, retention: Callable[[str], Retention]) -> None:
        """`retention`: how much is kept of a topic."""
        self._directory = directory
        self._retention = retention
        self._max_segment_bytes = max_segment_bytes
        self._all: dict[tuple[str, int], Partition] = {}
        self._awake: dict[Partition, None] = {}
        """Those whose files are open, the least recently used first."""
        self.have_rolled = False
        """Some have ended a segment since the last `trim`."""
        self._most_awake = max(descriptors.limit() // _SHARE_OF_DESCRIPTORS, _LEAST_AWAKE)

    def __iter__(self) -> Iterator[Partition]:
        return iter(self._all.values())

    def __contains__(self, key: tuple[str, int]) -> bool:
        return key in self._all

    @property
    def highest_producer_id(self) -> int:
        """The greatest one in any partition; −1 if there is none."""
        return max((partition.producers.highest_id for partition in self), default=-1)

    def open_all(self) -> None:
        """Take the files from other users, and open what there is. OSError if that fails."""
        self._narrow()
        for topic, number, _ in files.partitions(self._directory):
            self.open(topic, number)

    def open(self, topic: str, number: int) -> Partition:
        """Open a partition, which is created if it is new. OSError if that fails."""
        partition = self.make(topic, number)
        self.take(topic, number, partition)
        return partition

    def make(self, topic: str, number: int) -> Partition:
        """Open a partition without adding it; any thread may do so. OSError if that fails."""
        partition = Partition(self._directory / f"{topic}-{number}", max_segment_bytes=self._max_segment_bytes)
        try:
            partition.open()
        except OSError:
            partition.close()
            raise
        return partition

    def take(self, topic: str, number: int, partition: Partition) -> None:
        """Add a partition that was made."""
        self._all[topic, number] = partition
        self.used(partition)

    def usable(self, topic: str, number: int) -> Partition:
        """A partition that can be appended to, opened again after an I/O error. OSError if it cannot be opened."""
        partition = self._all.get((topic, number))
        if partition is None:
            partition = self.open(topic, number)
        if partition.broken:
            log.warning("reopening partition", reason="an earlier I/O error", partition=partition.path.name)
            partition.reopen()
        return partition

    def used(self, partition: Partition) -> None:
        """Note that its files were used; those of others are closed if they are too many."""
        self.have_rolled = self.have_rolled or partition.has_rolled
        self._awake.pop(partition, None)
        if partition.is_awake:
            self._awake[partition] = None
        while len(self._awake) > self._most_awake:
            oldest = next(iter(self._awake))
            del self._awake[oldest]
            oldest.close()

    def trim(self, *, rolled: bool) -> None:
        """Delete what is kept no longer: in all partitions, or only in those that have ended a segment."""
        self.have_rolled = False
        for (topic, _), partition in list(self._all.items()):
            if partition.broken or (rolled and not partition.has_rolled):
                continue
            try:
                partition.trim(self._retention(topic), time.time())
            except OSError as error:
                log.error(
                    "old segments not deleted", partition=partition.path.name, reason=error.strerror or str(error)
                )

    def close(self) -> None:
        """Close all files; batches that were not committed are lost."""
        for partition in self:
            partition.close()
        self._all.clear()
        self._awake.clear()

    def _narrow(self) -> None:
        narrowed = 0
        for path, error in files.narrow(self._directory):
            narrowed += error is None
            if error is not None:
                text = error.strerror or str(error)
                remedy = "chmod go= it, or let the receiver's own user own it"
                log.warning("others may read the log", path=str(path), reason=text, remedy=remedy)
        if narrowed:
            log.info("log closed to other users", directory=str(self._directory), paths=narrowed)
