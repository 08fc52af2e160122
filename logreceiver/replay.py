"""Copies a topic of the embedded log to Kafka: the same batches, under producer ids of that cluster, in order.

Batches of a partition are stamped in one sequence and stored one at a time by a `RunWriter`, so a break in the middle
neither loses nor repeats. If a batch cannot be stored, or its fate cannot be found out, the replay ends and names the
offset. So it does at damage, unless that is to be skipped. A replay that ended in any way, also by kill -9, goes on
where it was: replayed.py keeps its place, and of the batches behind that the target says what it has.
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
from msgspec.structs import replace

from logreceiver.replayed import Place, Places, kept
from logreceiver.sinks import Sink, TopicInfo
from logreceiver.sinks.log.damage import OnDamage, stop
from logreceiver.sinks.log.read import PartitionReader, StoredBatch, readers
from logreceiver.sinks.make import make_sink
from logreceiver.sinks.run_writer import RunWriter
from logreceiver.sinks.settings import AnySink, KafkaSink
from streams.addresses import split_address
from streams.config import toml
from streams.errors import BatchCorrupt, Code, ConfigError, Problem, SinkUnavailable
from streams.records.batch import SEQUENCES, halves, parse_header
from streams.records.walk import walk

PATIENCE_SECONDS = 120.0
"""How long to keep trying with one batch."""
_PAUSE_SECONDS = 0.5
FORGOTTEN_SECONDS = 3600.0
"""Brokers forget no producer that is younger."""

T = TypeVar("T")
log = structlog.get_logger("logreceiver.replay")


class ReplayResult(msgspec.Struct, frozen=True):
    """What was stored."""

    records: int
    batches: int
    topic: str


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


class _File(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of a file that names the target: the section that a receiver in front of it would have."""

    sink: AnySink


def sink_in(path: Path) -> KafkaSink:
    """The `[sink]` of a receiver's configuration, whatever else is in the file; ConfigError with all its faults."""
    table, problems = toml.parse(path), list[Problem]()
    only = {"sink": table["sink"]} if "sink" in table else {}
    found = toml.convert(only, _File, path=path, base=path.absolute().parent, problems=problems)
    if found is not None:
        toml.add(problems, path, found.sink.check())
        if not isinstance(found.sink, KafkaSink):
            problems.append(Problem(path, "sink.type", 'is not "kafka": a replay writes to Kafka'))
        elif not problems:
            return found.sink
    raise ConfigError(problems)


async def replay_to(
    directory: Path, topic: str, to: str, *, on_damage: OnDamage = stop, again: bool = False
) -> ReplayResult:
    """Replay what is acknowledged to a URL, or to what a .toml file names as its sink; `again`: all of it.

    ConfigError for a wrong target or topic, SinkUnavailable if it had to stop, LogDamaged at damage not to be skipped.
    """
    from_file = sink_in(Path(to)) if to.endswith(".toml") else None
    target = Target(from_file.brokers, topic) if from_file is not None else parse_url(to, topic)
    try:
        sources = readers(directory, topic, on_damage=on_damage)
    except FileNotFoundError as error:
        raise ConfigError([Problem(directory, "", str(error))]) from error
    plain = KafkaSink(brokers=target.brokers, create_topics=True, partition_count=len(sources))
    sink = make_sink(plain if from_file is None else from_file)
    try:
        await sink.start()
        info = await _patiently(lambda: sink.topic(target.topic))
        with kept(directory, topic, info, sink.cluster_id, again=again) as places:
            return await replay(sink, sources, info, places)
    finally:
        await sink.close()


async def replay(sink: Sink, sources: list[PartitionReader], info: TopicInfo, places: Places) -> ReplayResult:
    """Replay partitions into a started sink, one after the other."""
    records = batches = 0
    with _progress() as advance:
        for reader in sources:
            found = await _Copy(sink, reader, info, places, advance).run()
            records, batches = records + found[0], batches + found[1]
    return ReplayResult(records, batches, info.name)


class _Copy:
    """One partition on its way."""

    def __init__(
        self, sink: Sink, reader: PartitionReader, info: TopicInfo, places: Places, advance: Callable[[int], None]
    ) -> None:
        self._sink, self._reader, self._info, self._places = sink, reader, info, places
        self._advance = advance

    async def run(self) -> tuple[int, int]:
        """Store what the target lacks; how many records and batches that was."""
        number, patience, batches = self._reader.partition, _Patience(), 0
        place, ahead = await self._begin()
        self._reader.start_at(place.offset)
        first = place.sequence + ahead
        run = RunWriter(
            self._sink, self._info.name, place.target_partition, place.producer_id, patience, next_sequence=first
        )
        for batch in self._reader.poll():
            patience.renew()
            if ahead and self._reader.begins_at > place.offset:
                raise _unknown(f"old segments of partition {number} were deleted since")
            try:
                walk(memoryview(batch.payload), batch.header)
            except BatchCorrupt as error:  # stored by an earlier version; Kafka would refuse it
                self._reader.on_damage(batch.unreadable(error))
                continue
            count = batch.header.record_count
            if ahead < count:
                try:
                    await _store(run, batch.payload, passing=ahead)
                except SinkUnavailable as error:
                    _stopped(error, batch)
                self._advance(count - ahead)
                batches += 1
            ahead = max(ahead - count, 0)
            if not ahead:
                place = replace(place, offset=batch.next_offset, sequence=run.next_sequence, at=time.time())
                self._places.passed(number, place)
        if ahead:
            raise _unknown(f"it has {ahead} records of partition {number} that the log lacks")
        self._places.save(number, replace(place, under_way=False))
        return run.next_sequence - first, batches

    async def _begin(self) -> tuple[Place, int]:
        """Where to go on, and how many records behind that are stored."""
        number = self._reader.partition
        place = self._places.of(number)
        if not place.under_way:
            producer_id = await _patiently(self._sink.new_producer_id)
            to = number % self._info.partition_count
            place = Place(place.offset, to, producer_id, under_way=True, at=time.time())
            self._places.save(number, place)
            return place, 0
        to, producer_id = place.target_partition, place.producer_id
        stored = await _patiently(lambda: self._sink.ask(self._info.name, to, producer_id))
        if stored is None:
            if place.sequence or not 0 <= time.time() - place.at < FORGOTTEN_SECONDS:
                raise _unknown(f"it knows nothing (any more) of the producer {producer_id}")
            return place, 0
        ahead = (stored.last_sequence + 1 - place.sequence) % SEQUENCES
        if ahead > SEQUENCES // 2:
            raise _unknown(f"it has lost records of partition {number} that it had acknowledged")
        return place, ahead


def _unknown(reason: str) -> SinkUnavailable:
    text = f"what the target has of an interrupted replay is not known: {reason}; to copy everything (again): --again"
    return SinkUnavailable(Code.OUT_OF_ORDER, text)


def _stopped(error: SinkUnavailable, batch: StoredBatch) -> NoReturn:
    place = f"offset {batch.header.base_offset} of partition {batch.partition}"
    text = f"stopped before {place} (everything before it is stored): {error}"
    raise SinkUnavailable(error.code, text) from error


class _Patience:
    """What a run calls after a failure: waits, and gives up when one batch takes too long."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        self._deadline = time.monotonic() + PATIENCE_SECONDS

    async def __call__(self, code: Code, text: str) -> None:
        if time.monotonic() > self._deadline:
            raise SinkUnavailable(code, f"gave up after {PATIENCE_SECONDS:.0f} s: {text}")
        log.warning("batch not acknowledged", code=str(code), reason=text)
        await asyncio.sleep(_PAUSE_SECONDS)


async def _store(run: RunWriter, payload: bytes, *, passing: int = 0) -> None:
    """Store a batch, or its halves where it is too large; SinkUnavailable if that fails.

    `passing`: so many of its records are stored, as the first of its halves.
    """
    if not passing:
        outcome = await run.store(payload)
        if outcome.is_stored:
            return
        code, text = outcome.code or Code.UNKNOWN, outcome.text
        if code is not Code.TOO_LARGE:
            raise SinkUnavailable(code, text)
    split = halves(payload)
    if split is None:
        raise SinkUnavailable(Code.TOO_LARGE, f"a single record is too large: {text}")
    for half in split:
        count = parse_header(half).record_count
        if passing < count:
            await _store(run, half, passing=passing)
        passing = max(passing - count, 0)


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
