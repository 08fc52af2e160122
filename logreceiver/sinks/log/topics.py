"""Makes new topics of an embedded log beside its commits, which are shorter. Nobody knows one before it is complete."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from logreceiver.sinks.log.meta import LogMeta
from logreceiver.sinks.log.partitions import Partitions


class TopicMaker:
    """Makes one topic at a time, in a thread of its own."""

    def __init__(self, meta: LogMeta, partitions: Partitions, commits: ThreadPoolExecutor) -> None:
        """`commits`: the thread in which partitions are used."""
        self._meta, self._partitions, self._commits = meta, partitions, commits
        self.thread = ThreadPoolExecutor(1, "log-topics")
        self._rested_at = 0.0
        """When the next topic may be made (monotonic seconds): the disk has as much time for commits alone."""

    def make(self, name: str, partition_count: int) -> None:
        """For `thread`: make a topic, unless there is one. OSError if that fails."""
        if name in self._meta.topics:
            return
        time.sleep(max(self._rested_at - time.monotonic(), 0.0))
        began = time.monotonic()
        for number in range(partition_count):
            if (name, number) not in self._partitions:
                partition = self._partitions.make(name, number)
                self._commits.submit(self._partitions.take, name, number, partition).result()
        self._meta.add_topic(name, partition_count)
        self._rested_at = time.monotonic() + (time.monotonic() - began)
