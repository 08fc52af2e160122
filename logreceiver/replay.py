"""Copies a topic of the embedded log to Kafka: the same batches, under producer ids of that cluster, in order.

Each partition is one run: batches are stamped from sequence 0 and stored one at a time. After anything but a clear
acknowledgement the broker is asked what it has: if that is the end of this batch or of the one before it, the batch is
sent again, so a break in the middle neither loses nor repeats. If a batch cannot be stored, or its fate cannot be
found out, the replay ends and names the offset. Damaged batches are skipped, logged and counted. A second replay stores
everything again.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, NoReturn, TypeVar
from urllib.parse import urlsplit

import msgspec
import structlog

from logreceiver.sinks import Kind, Outcome, RunState, Sink
from logreceiver.sinks.log_read import PartitionReader, StoredBatch, readers
from logreceiver.sinks.make import make_sink
from logreceiver.sinks.settings import KafkaSink
from streams.addresses import split_address
from streams.errors import Code, ConfigError, Problem, SinkUnavailable
from streams.recordbatch import SEQUENCES, halves, parse_header, place, stamp

PATIENCE_SECONDS = 120.0
"""How long to keep trying with one batch."""
_PAUSE_SECONDS = 0.5

T = TypeVar("T")
log = structlog.get_logger("logreceiver.replay")


class ReplayResult(msgspec.Struct, frozen=True):
    """What was stored, and how many damaged places of the log were skipped."""

    records: int
    batches: int
    topic: str
    damaged: int = 0


class Target(NamedTuple):
    """Where to replay to, from the URL."""

    brokers: tuple[str, ...]
    topic: str


def parse_url(url: str, topic: str) -> Target:
    """kafka://HOST:PORT[,HOST:PORT…][/TOPIC]; raises ConfigError."""
    parts = urlsplit(url)
    name = parts.path.strip("/") or topic
    try:
        brokers = tuple(parts.netloc.split(","))
        for broker in brokers:
            split_address(broker)
        if parts.scheme != "kafka" or "/" in name or parts.query or parts.fragment:
            raise ValueError
    except ValueError as error:
        text = f"{url!r} is not kafka://HOST:PORT[,HOST:PORT…][/TOPIC]"
        raise ConfigError([Problem(Path("--to"), "", text)]) from error
    return Target(brokers, name)


async def replay_to_url(directory: Path, topic: str, url: str) -> ReplayResult:
    """Replay everything acknowledged. ConfigError for a wrong URL or topic, SinkUnavailable if it had to stop."""
    target = parse_url(url, topic)
    try:
        sources = readers(directory, topic)
    except FileNotFoundError as error:
        raise ConfigError([Problem(directory, "", str(error))]) from error
    sink = make_sink(KafkaSink(brokers=target.brokers, create_topics=True, partition_count=len(sources)))
    try:
        await sink.start()
        return await replay(sink, sources, target.topic)
    finally:
        await sink.close()


async def replay(sink: Sink, sources: list[PartitionReader], topic: str) -> ReplayResult:
    """Replay partitions into a started sink, one after the other."""
    info = await _patiently(lambda: sink.topic(topic))
    records = batches = 0
    with _progress() as advance:
        for reader in sources:
            producer_id = await _patiently(sink.new_producer_id)
            run = _Run(sink, topic, reader.partition % info.partition_count, producer_id)
            for batch in reader.poll():
                try:
                    await run.store(batch.payload)
                except SinkUnavailable as error:
                    _stopped(error, batch)
                advance(batch.header.record_count)
                batches += 1
            records += run.acknowledged
    return ReplayResult(records, batches, topic, sum(reader.damaged for reader in sources))


def _stopped(error: SinkUnavailable, batch: StoredBatch) -> NoReturn:
    place = f"offset {batch.header.base_offset} of partition {batch.partition}"
    text = f"stopped before {place} (everything before it is stored): {error}"
    raise SinkUnavailable(error.code, text) from error


class _Run:
    """One producer on one partition of the target."""

    def __init__(self, sink: Sink, topic: str, partition: int, producer_id: int) -> None:
        self._sink = sink
        self._topic = topic
        self._partition = partition
        self._producer_id = producer_id
        self.acknowledged = 0

    async def store(self, payload: bytes) -> None:
        """Returns when the batch is acknowledged; SinkUnavailable if it cannot be stored or its fate is unknown."""
        stamped = stamp(
            payload,
            producer_id=self._producer_id,
            producer_epoch=0,
            base_sequence=self.acknowledged,
            now_ms=int(time.time() * 1000),
        )
        place(stamped, 0)  # a broker refuses a producer's batch with any other offset
        outcome = await self._deliver(memoryview(stamped))
        if outcome.code is not Code.TOO_LARGE:
            self.acknowledged += parse_header(payload).record_count
            return
        split = halves(payload)
        if split is None:
            raise SinkUnavailable(Code.TOO_LARGE, f"a single record is too large: {outcome.text}")
        for half in split:
            await self.store(half)

    async def _deliver(self, batch: memoryview) -> Outcome:
        """Returns an outcome that is stored, or refused as too large."""
        end = parse_header(batch).last_sequence
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            outcome = await self._sink.produce(self._topic, self._partition, batch)
            if outcome.kind in (Kind.STORED, Kind.DUPLICATE):
                return outcome
            code = outcome.code or Code.UNKNOWN
            if outcome.kind is Kind.REFUSED and not code.retriable:
                if code is Code.TOO_LARGE:
                    return outcome
                raise SinkUnavailable(code, outcome.text)
            if time.monotonic() > deadline:
                raise SinkUnavailable(code, f"gave up after {PATIENCE_SECONDS:.0f} s: {outcome.text}")
            log.warning("batch not acknowledged", code=str(code), reason=outcome.text)
            await asyncio.sleep(_PAUSE_SECONDS)
            await self._find_out(end)

    async def _find_out(self, end: int) -> None:
        """Sending the batch again is safe only if the broker has it, or ends just before it."""
        stored = await _patiently(lambda: self._sink.ask(self._topic, self._partition, self._producer_id))
        before = RunState(0, (self.acknowledged - 1) % SEQUENCES) if self.acknowledged else None
        if stored not in (RunState(0, end), before):
            raise SinkUnavailable(Code.OUT_OF_ORDER, f"the broker has {stored}, expected {before} or sequence {end}")


async def _patiently(call: Callable[[], Awaitable[T]]) -> T:
    """The broker's answer, once it gives one; the last SinkUnavailable after `PATIENCE_SECONDS`."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return await call()
        except SinkUnavailable as error:
            if time.monotonic() > deadline:
                raise
            log.warning("waiting for the broker", code=str(error.code), reason=str(error))
            await asyncio.sleep(_PAUSE_SECONDS)


@contextmanager
def _progress() -> Iterator[Callable[[int], None]]:
    """Counts records on stderr if that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.completed:,.0f} records replayed"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("", total=None)
        yield lambda records: bar.advance(task, records)
