"""What a partition knows about its producers, and how it judges a batch: Apache Kafka's rules for idempotent producers.

It knows the newest producer epoch and the last five batches of each producer id. A repeat of one of them is answered
with its first offset; the next in sequence is appended; a higher producer epoch must begin at sequence 0; a lower one
is fenced; an unknown producer may begin anywhere. No I/O.

Whoever deletes batches keeps what they said about their producers, for a day after a producer's last batch, as Kafka
does: until then its forwarder may ask whether that batch is stored.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import NamedTuple

import msgspec

from logreceiver.sinks import Kind, Outcome, RunState
from streams.errors import Code
from streams.records.batch import SEQUENCES, Header

REMEMBERED_BATCHES = 5


class _Batch(NamedTuple):
    base_sequence: int
    last_sequence: int
    base_offset: int


class _Known(NamedTuple):
    epoch: int
    batches: tuple[_Batch, ...]
    time_ms: int
    """Not before the newest batch was stored; known only of batches that are about to be deleted."""


class Remembered(msgspec.Struct, frozen=True, array_like=True):
    """A producer and its last batches, as they are written to disk."""

    producer_id: int
    epoch: int
    time_ms: int
    batches: tuple[_Batch, ...]
    """Base sequence, last sequence and base offset of each, the newest last."""


Undo = tuple[int, _Known | None]


class Producers:
    """The producers of one partition."""

    def __init__(self) -> None:
        self._known: dict[int, _Known] = {}
        self.highest_id = -1

    def state(self, producer_id: int) -> RunState | None:
        """The newest epoch and sequence of a producer; None if it is unknown."""
        known = self._known.get(producer_id)
        return None if known is None else RunState(known.epoch, known.batches[-1].last_sequence)

    def judge(self, header: Header) -> Outcome | None:
        """The answer to a batch that must not be appended; None if it must be."""
        known = self._known.get(header.producer_id)
        if known is None:
            return None
        if header.producer_epoch < known.epoch:
            return Outcome.refused(
                Code.FENCED, f"producer epoch {header.producer_epoch} is older than the stored {known.epoch}"
            )
        if header.producer_epoch > known.epoch:
            expected = 0
        else:
            for batch in known.batches:
                if (batch.base_sequence, batch.last_sequence) == (header.base_sequence, header.last_sequence):
                    return Outcome(Kind.DUPLICATE, batch.base_offset)
            expected = (known.batches[-1].last_sequence + 1) % SEQUENCES
        if header.base_sequence == expected:
            return None
        return Outcome.refused(Code.OUT_OF_ORDER, f"base sequence is {header.base_sequence}, expected {expected}")

    def record(self, header: Header, base_offset: int, *, time_ms: int = 0) -> Undo:
        """Remember an appended batch; `undo` takes it back."""
        producer_id = header.producer_id
        before = self._known.get(producer_id)
        if producer_id >= 0:
            earlier = before.batches if before is not None and before.epoch == header.producer_epoch else ()
            batch = _Batch(header.base_sequence, header.last_sequence, base_offset)
            batches = (*earlier[1 - REMEMBERED_BATCHES :], batch)
            self._known[producer_id] = _Known(header.producer_epoch, batches, time_ms)
            self.highest_id = max(self.highest_id, producer_id)
        return producer_id, before

    def undo(self, step: Undo) -> None:
        """Take back the newest `record`."""
        producer_id, before = step
        if before is None:
            self._known.pop(producer_id, None)
        else:
            self._known[producer_id] = before

    # -- of batches that are deleted ---------------------------------------------------------------------------

    def remember(self, producers: Iterable[Remembered]) -> None:
        """Know what was known before the first batch that is still there."""
        for one in producers:
            self._known[one.producer_id] = _Known(one.epoch, one.batches, one.time_ms)
            self.highest_id = max(self.highest_id, one.producer_id)

    def remembered(self, *, since_ms: int) -> list[Remembered]:
        """What must be known without the batches: of producers that stored something since then."""
        return [
            Remembered(producer_id, known.epoch, known.time_ms, known.batches)
            for producer_id, known in self._known.items()
            if known.time_ms >= since_ms
        ]

    def forget(self, *, before_offset: int, but: Container[int]) -> None:
        """Forget producers whose batches are all before this offset, but for some ids."""
        gone = [
            producer_id
            for producer_id, known in self._known.items()
            if known.batches[-1].base_offset < before_offset and producer_id not in but
        ]
        for producer_id in gone:
            del self._known[producer_id]
