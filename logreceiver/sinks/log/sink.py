"""The embedded log sink: Kafka's files without Kafka, in one directory that one process owns.

Batches are appended to segments that Kafka's own tools read (files.py has the layout) and fsynced before they are
answered; sessions that produce at the same time share an fsync (*group commit*). Producers are judged by Kafka's rules
(producers.py), and answers about them only cover what is durable: every question and every commit goes through one
thread, one after the other. Only new topics are made beside it, which takes longer than a commit. After a restart it
recognises more batches than Kafka does: the last five of each producer, not only the last one.

A full disk refuses batches until there is room. After an fsync error the batches concerned are uncertain; their
partition is opened and read again before its next use, without what was never acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import functools
import os
from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog

from logreceiver.sinks import Kind, Outcome, RunState, TopicInfo
from logreceiver.sinks.log.files import DIRECTORY_MODE, legal_topic
from logreceiver.sinks.log.look import SMALL_BYTES, Look, Lookers, look_at
from logreceiver.sinks.log.meta import LogMeta
from logreceiver.sinks.log.partition import Partition
from logreceiver.sinks.log.partitions import Partitions
from logreceiver.sinks.log.read import read_records
from logreceiver.sinks.log.retention import Retention, retention_of
from logreceiver.sinks.log.topics import TopicMaker
from logreceiver.sinks.settings import LogSink as Settings
from streams import tasks
from streams.errors import BatchCorrupt, Code, ConfigError, Problem, SinkUnavailable
from streams.files import open_own

__all__ = ["LogSink", "read_records"]

TRIM_SECONDS = 30.0
"""How often segments are looked at for their age; for their bytes, also whenever one is ended."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_CLOSED = Outcome.refused(Code.UNAVAILABLE, "the log is closed")
log = structlog.get_logger("logreceiver.log")
T = TypeVar("T")


class _Job(msgspec.Struct, eq=False):
    """One batch under way to the disk."""

    topic: str
    partition: int
    batch: memoryview
    look: Look | None
    """None of a small one, before its commit."""
    answer: asyncio.Future[Outcome]


class _Group(msgspec.Struct, eq=False):
    """The batches of one commit in one partition: job number → the answer if it becomes durable."""

    partition: Partition
    answers: dict[int, Outcome] = {}
    error: OSError | None = None


class LogSink:
    """The embedded log in `settings.directory`."""

    name = "log"

    def __init__(self, settings: Settings, *, ledger_topic: str = "") -> None:
        self._settings = settings
        self._ledger_topic = ledger_topic
        self._directory = settings.directory
        self._partitions = Partitions(
            settings.directory, max_segment_bytes=settings.max_segment_bytes, retention=self._retention
        )
        self._meta = LogMeta(self._directory)
        self._problems: dict[str, str] = {}
        """By partition, for `health`; removed by the next commit that works."""
        self._jobs: list[_Job] = []
        """The next group."""
        self._work = asyncio.Event()
        self._committer: asyncio.Task[None] | None = None
        self._trimmer: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, "log-sink")
        """Alone touches partitions and files, so nothing else needs a lock."""
        self._maker = TopicMaker(self._meta, self._partitions, self._thread)
        self._lookers = Lookers()
        self._in_order: dict[tuple[str, int], asyncio.Lock] = defaultdict(asyncio.Lock)
        """Batches of a partition are looked at one after the other, as they came."""
        self._rolled = asyncio.Event()
        """A segment was ended since the last trim."""
        self._lock_fd = -1
        self._closed = True

    @property
    def cluster_id(self) -> str:
        return self._meta.cluster_id

    def health(self) -> Mapping[str, str]:
        return dict(self._problems)

    # -- life --------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Lock the directory, repair it, load its state. ConfigError if it is in use or unusable."""
        await self._in_thread(self._open)
        self._closed = False
        self._committer = tasks.vital("commits", self._commit_groups())
        self._trimmer = tasks.forever("retention", self._trim)

    async def close(self) -> None:
        """Commit what is under way, then release the directory."""
        self._closed = True
        if self._trimmer is not None:
            self._trimmer.cancel()
            await asyncio.gather(self._trimmer, return_exceptions=True)
            self._trimmer = None
        if self._committer is not None:
            self._work.set()
            await asyncio.gather(self._committer, return_exceptions=True)
            self._committer = None
        await asyncio.to_thread(self._maker.thread.shutdown)
        await self._in_thread(self._release)
        self._thread.shutdown()
        self._lookers.close()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _open(self) -> None:
        try:
            self._directory.mkdir(DIRECTORY_MODE, parents=True, exist_ok=True)
            self._lock()
            self._meta.read()
            self._partitions.open_all()
            self._meta.read_producer_ids(self._partitions.highest_producer_id)
        except OSError as error:
            self._release()
            raise ConfigError([Problem(self._directory, "sink.directory", str(error))]) from error
        except ConfigError:
            self._release()
            raise

    def _release(self) -> None:
        self._partitions.trim(rolled=True)
        self._partitions.close()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def _lock(self) -> None:
        self._lock_fd = open_own(self._directory / "lock", os.O_RDWR)
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(self._lock_fd, 32, 0).decode(errors="replace").strip() or "unknown"
            text = f"another receiver (process {owner}) writes to this directory; each receiver needs its own"
            raise ConfigError([Problem(self._directory, "sink.directory", text)]) from error
        os.ftruncate(self._lock_fd, 0)
        os.pwrite(self._lock_fd, f"{os.getpid()}\n".encode(), 0)

    # -- retention ---------------------------------------------------------------------------------------------

    def _retention(self, topic: str) -> Retention:
        return retention_of(self._settings, ledger=topic == self._ledger_topic)

    async def _trim(self) -> None:
        loop, all_at = asyncio.get_running_loop(), 0.0
        while True:
            if is_due := loop.time() >= all_at:
                all_at = loop.time() + TRIM_SECONDS
            self._rolled.clear()
            await self._in_thread(functools.partial(self._partitions.trim, rolled=not is_due))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(all_at):
                    await self._rolled.wait()

    # -- topics and producers ----------------------------------------------------------------------------------

    async def topic(self, name: str) -> TopicInfo:
        """Facts about a topic, which is created if it is new."""
        if (info := await self.find(name)) is None:
            await self._ask(self._maker.thread, lambda: self._maker.make(name, self._settings.partition_count))
            info = await self.find(name)
        assert info is not None
        return info

    async def find(self, name: str) -> TopicInfo | None:
        if not legal_topic(name):
            raise SinkUnavailable(Code.TOPIC_MISSING, f"{name!r} is not a valid topic name")
        if (topic := self._meta.topics.get(name)) is None:
            return None
        return TopicInfo(name, topic.topic_id, topic.partition_count, self._settings.max_message_bytes)

    async def new_producer_id(self) -> int:
        return await self._ask(self._thread, lambda: self._meta.take_producer_id(self._partitions.highest_producer_id))

    async def ask(self, topic: str, partition: int, producer_id: int) -> RunState | None:
        return await self._ask(self._thread, lambda: self._partition(topic, partition).producers.state(producer_id))

    async def _ask(self, thread: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        """Run in a thread: in the one that commits, it comes between two commits."""
        if self._closed:
            raise SinkUnavailable(Code.UNAVAILABLE, "the log is closed")
        try:
            return await asyncio.get_running_loop().run_in_executor(thread, work)
        except OSError as error:
            raise SinkUnavailable(Code.UNAVAILABLE, _describe(error, self._directory)) from error

    def _partition(self, topic: str, number: int) -> Partition:
        """A usable partition; SinkUnavailable if there is none, OSError if it cannot be opened."""
        if (topic, number) not in self._partitions:
            known = self._meta.topics.get(topic)
            if known is None or not 0 <= number < known.partition_count:
                raise SinkUnavailable(Code.TOPIC_MISSING, f"there is no partition {topic}-{number}")
        return self._partitions.usable(topic, number)

    # -- batches -----------------------------------------------------------------------------------------------

    async def produce(self, topic: str, partition: int, batch: memoryview) -> Outcome:
        if self._closed:
            return _CLOSED
        limit = self._settings.max_message_bytes
        if len(batch) > limit:
            return Outcome.refused(Code.TOO_LARGE, f"{len(batch)} bytes; the limit is {limit}")
        try:
            async with self._in_order[topic, partition]:
                look = None if len(batch) <= SMALL_BYTES else await self._lookers.look(batch)
        except BatchCorrupt as error:
            return Outcome.refused(Code.CORRUPT, str(error))
        if self._closed:  # meanwhile
            return _CLOSED
        job = _Job(topic, partition, batch, look, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        self._work.set()
        return await job.answer

    async def _commit_groups(self) -> None:
        """Batches that arrive during a commit form the next group."""
        while not self._closed or self._jobs:
            await self._work.wait()
            self._work.clear()
            jobs, self._jobs = self._jobs, []
            outcomes: list[Outcome] = []
            try:
                outcomes = await self._in_thread(lambda jobs=jobs: self._commit(jobs))  # type: ignore[misc]
            except Exception:
                log.exception("commit failed")
                outcomes = [Outcome.uncertain(Code.UNKNOWN, "the log sink failed")] * len(jobs)
            for job, outcome in zip(jobs, outcomes, strict=True):
                if not job.answer.done():
                    job.answer.set_result(outcome)
            if self._partitions.have_rolled:
                self._rolled.set()

    def _commit(self, jobs: list[_Job]) -> list[Outcome]:
        """Append every batch that may be appended, fsync each partition once, and only then answer."""
        outcomes: dict[int, Outcome] = {}
        groups: dict[tuple[str, int], _Group] = {}
        for number, job in enumerate(jobs):
            outcome = self._append(number, job, groups)
            if outcome is not None:
                outcomes[number] = outcome
        for group in groups.values():
            outcomes.update(self._finish(group))
        return [outcomes[number] for number in range(len(jobs))]

    def _append(self, number: int, job: _Job, groups: dict[tuple[str, int], _Group]) -> Outcome | None:
        """Queue one batch in its group, or return an answer that is already certain."""
        group = groups.get((job.topic, job.partition))
        try:
            look = job.look or look_at(job.batch)
            if group is None:
                group = groups[job.topic, job.partition] = _Group(self._partition(job.topic, job.partition))
            if group.error is not None:
                raise group.error
            answer = group.partition.producers.judge(look.header)
            if answer is None:
                if look.unfit:
                    return Outcome.refused(Code.INVALID_RECORD, look.unfit)
                answer = Outcome(Kind.STORED, group.partition.append(look.header, job.batch))
        except BatchCorrupt as error:
            return Outcome.refused(Code.CORRUPT, str(error))
        except SinkUnavailable as error:
            return Outcome.refused(error.code, str(error))
        except OSError as error:
            if group is not None:
                group.error = error
            text = self._problems[f"{job.topic}-{job.partition}"] = _describe(error, self._directory)
            return Outcome.refused(Code.UNAVAILABLE, text)
        if answer.kind is Kind.REFUSED:
            return answer
        group.answers[number] = answer
        return None

    def _finish(self, group: _Group) -> dict[int, Outcome]:
        """Commit a group; after an error only batches that are durable nevertheless count as stored."""
        partition = group.partition
        if group.error is None:
            try:
                partition.commit()
            except OSError as error:
                group.error = error
            self._partitions.used(partition)
        if group.error is None:
            self._problems.pop(partition.path.name, None)
            return group.answers
        failure = self._failure(partition, group.error)
        durable = partition.durable_offset
        return {number: one if one.base_offset < durable else failure for number, one in group.answers.items()}

    def _failure(self, partition: Partition, error: OSError) -> Outcome:
        """The answer for batches that did not become durable: refused if they were certainly taken back."""
        text = _describe(error, partition.path)
        log.error("partition write failed", partition=partition.path.name, reason=text)
        self._problems[partition.path.name] = text
        if not partition.broken:
            with contextlib.suppress(OSError):
                partition.roll_back()
        if partition.broken:
            return Outcome.uncertain(Code.UNAVAILABLE, text)
        return Outcome.refused(Code.UNAVAILABLE, text)


def _describe(error: OSError, path: Path) -> str:
    if error.errno in _FULL:
        return f"{path}: the disk is full; free some space"
    return f"{path}: cannot be written: {error.strerror or error}"
