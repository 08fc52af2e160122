"""What a spool holds of a stream, as plain data: runs, rows (batches), totals, and the payloads that rows share.

`backlog.py` decides what becomes of them; `Changes` is what it notes for the next transaction.
"""

from __future__ import annotations

import sys
from typing import Protocol

import msgspec

from streams.records.batch import Packed

ROW_BYTES = 300
"""What a batch takes beside its payload, on disk and in memory together: so much of its budget."""

ROW_ID_STEP = 1 << 20
"""Room between neighbouring row ids, so that a row can be halved in place down to single records."""


class Run(msgspec.Struct, eq=False):
    """A producer id and its sequence of batches. `producer_id` −1: not granted yet."""

    number: int
    cluster_id: str = ""
    topic: str = ""
    topic_id: str = ""
    partition: int = -1
    producer_id: int = -1
    producer_epoch: int = 0
    grant: bytes = b""
    next_sequence: int = 0
    last_acknowledged_sequence: int = -1

    @property
    def granted(self) -> bool:
        return self.producer_id >= 0

    @property
    def place(self) -> tuple[str, str, int]:
        """Where a granted run is stored: cluster, topic and partition."""
        return self.cluster_id, self.topic_id, self.partition


class Row(msgspec.Struct, eq=False):
    """One spooled batch of one stream. `payload` is kept in memory only for batches that are about to be sent."""

    id: int
    run: int
    blob: int
    record_count: int
    size: int
    base_sequence: int | None = None
    payload: bytes | None = None
    sealed_at: float | None = None
    committed_at: float | None = 0.0

    @property
    def committed(self) -> bool:
        return self.committed_at is not None

    @property
    def last_sequence(self) -> int:
        """Sequence of the last record; only for a stamped row."""
        assert self.base_sequence is not None
        return self.base_sequence + self.record_count - 1

    def half(self, row_id: int, blob: int, half: Packed, sequence: int | None) -> Row:
        """A part of it with a payload of its own."""
        size, payload = len(half.payload), half.payload
        changed = {"id": row_id, "blob": blob, "record_count": half.record_count, "size": size}
        return msgspec.structs.replace(self, **changed, base_sequence=sequence, payload=payload)


class Totals(msgspec.Struct):
    """Records since the spool was created: accepted = acknowledged + waiting + dropped + dead_lettered.

    `sampled`, `limited`, `filtered`: left out before the others were accepted, so no part of that sum.
    """

    accepted: int = 0
    invalid: int = 0
    acknowledged: int = 0
    dropped: int = 0
    dead_lettered: int = 0
    resets: int = 0
    sampled: int = 0
    limited: int = 0
    filtered: int = 0

    @property
    def gone(self) -> int:
        """What was accepted and does not wait any more."""
        return self.acknowledged + self.dropped + self.dead_lettered

    def imbalance(self, stream: str, waiting: int) -> str:
        """What does not add up if so many records wait, as when rows have vanished; empty if all does."""
        if self.accepted == self.gone + waiting:
            return ""
        return f"{stream} accepted {self.accepted} records, but {self.gone} are accounted for and {waiting} are waiting"


class Letter(msgspec.Struct, frozen=True):
    """A dead letter: a batch that was set aside."""

    id: int
    record_count: int
    size: int


class DeadLetters(msgspec.Struct):
    """How much of their budget a stream's dead letters take."""

    max_bytes: int = sys.maxsize
    byte_count: int = 0

    def has_room(self, row: Row) -> bool:
        """False if the row would exceed the budget as a dead letter; any may be the only one."""
        return not self.byte_count or self.byte_count + row.size + ROW_BYTES <= self.max_bytes

    def add(self, row: Row) -> None:
        self.byte_count += row.size + ROW_BYTES

    def remove(self, letter: Letter) -> None:
        self.byte_count -= letter.size + ROW_BYTES


class Changes(Protocol):
    """Notes for one transaction; logfwd/spool/notes.py turns them into SQL."""

    def put_blob(self, blob: int, payload: bytes) -> None: ...
    def delete_blob(self, blob: int) -> None: ...
    def delete_blobs(self, first: int, last: int) -> None: ...
    def put_row(self, stream: str, row: Row) -> None: ...
    def delete_row(self, row: Row) -> None: ...
    def delete_rows(self, stream: str, run: int, first: int, last: int) -> None: ...
    def put_run(self, stream: str, run: Run) -> None: ...
    def delete_run(self, stream: str, run: Run) -> None: ...
    def put_totals(self, stream: str, totals: Totals) -> None: ...
    def put_dead_letter(self, stream: str, row: Row, code: str, text: str) -> None: ...
    def delete_dead_letter(self, dead_letter: int) -> None: ...
