"""What a partition knows about its producers, and how it judges a batch: Apache Kafka's rules for idempotent producers.

It knows the newest producer epoch and the last five batches of each producer id. A repeat of one of them is answered
with its first offset; the next in sequence is appended; a higher producer epoch must begin at sequence 0; a lower one
is fenced; an unknown producer may begin anywhere. No I/O.
"""

from __future__ import annotations

from typing import NamedTuple

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

    def record(self, header: Header, base_offset: int) -> Undo:
        """Remember an appended batch; `undo` takes it back."""
        producer_id = header.producer_id
        before = self._known.get(producer_id)
        if producer_id >= 0:
            earlier = before.batches if before is not None and before.epoch == header.producer_epoch else ()
            batch = _Batch(header.base_sequence, header.last_sequence, base_offset)
            self._known[producer_id] = _Known(header.producer_epoch, (*earlier[1 - REMEMBERED_BATCHES :], batch))
            self.highest_id = max(self.highest_id, producer_id)
        return producer_id, before

    def undo(self, step: Undo) -> None:
        """Take back the newest `record`."""
        producer_id, before = step
        if before is None:
            self._known.pop(producer_id, None)
        else:
            self._known[producer_id] = before
