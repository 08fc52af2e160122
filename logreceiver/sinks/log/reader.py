"""The embedded log as a `Reader`, for whoever reads sinks without knowing which they are."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import ClassVar, NamedTuple

from logreceiver.sinks import Held, RunState
from logreceiver.sinks.log import snapshot
from logreceiver.sinks.log.damage import Damage, OnDamage, stop
from logreceiver.sinks.log.producers import Producers
from logreceiver.sinks.log.read import read_records, readers
from logreceiver.sinks.log.snapshot import SnapshotUnusable
from streams.errors import BatchCorrupt, Code, SinkUnavailable
from streams.records.walk import walk


class _Read(NamedTuple):
    """What one reading of a whole partition has found."""

    producers: Producers
    held: Held


class LogReader:
    """A `Reader` of the log in a directory. Its answers are those of the moment when they were first asked for."""

    asking_is_cheap: ClassVar[bool] = False

    def __init__(self, directory: Path, *, on_damage: OnDamage = stop) -> None:
        self._directory = directory
        self._on_damage = on_damage
        self._known: dict[tuple[str, int], _Read] = {}

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def read_all(self, topic: str) -> AsyncIterator[bytes]:
        try:
            for record in read_records(self._directory, topic, on_damage=self._on_damage):
                yield record.value or b""
        except FileNotFoundError as error:
            raise SinkUnavailable(Code.TOPIC_MISSING, str(error)) from error

    async def ask(self, topic: str, partition: int, producer_id: int) -> RunState | None:
        """What the partition knows of a producer, found by reading all its batches, once."""
        return self._read(topic, partition).producers.state(producer_id)

    async def held(self, topic: str, partition: int) -> Held:
        """Found by reading every record of the partition, once."""
        return self._read(topic, partition).held

    def _read(self, topic: str, partition: int) -> _Read:
        known = self._known.get((topic, partition))
        if known is None:
            try:
                known = self._known[topic, partition] = _read(self._directory, topic, partition)
            except FileNotFoundError as error:
                raise SinkUnavailable(Code.TOPIC_MISSING, str(error)) from error
        return known


def _read(directory: Path, topic: str, partition: int) -> _Read:
    """Damage is no reason to stop here: that it is there is the answer."""
    producers, damaged = Producers(), list[Damage]()
    reader = readers(directory, topic, partition=partition, on_damage=damaged.append)[0]
    with contextlib.suppress(SnapshotUnusable):  # the reader says so
        producers.remember(snapshot.read(reader.path).producers)
    for batch in reader.poll():
        producers.record(batch.header, batch.header.base_offset)
        try:
            walk(memoryview(batch.payload), batch.header)
        except BatchCorrupt as error:
            damaged.append(batch.unreadable(error))
    lacking = [(one.from_offset, one.to_offset) for one in damaged if one.to_offset > one.from_offset >= 0]
    return _Read(producers, Held(reader.begins_at, tuple(lacking)))
