"""A spool without a disk: takes notes like logfwd.spool.notes.Notes, commits a prefix of them, returns a backlog."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from msgspec.structs import replace

from logfwd.spool.backlog import Backlog
from logfwd.spool.beyond import Beyond, Segment
from logfwd.spool.blobs import Blobs
from logfwd.spool.rows import Row, Run, Totals


@dataclass
class ModelDisk:
    """`pending` holds the notes that a crash would lose."""

    rows: dict[int, tuple[str, Row]] = field(default_factory=dict)
    runs: dict[tuple[str, int], Run] = field(default_factory=dict)
    blobs: dict[int, bytes] = field(default_factory=dict)
    totals: dict[str, Totals] = field(default_factory=dict)
    dead: list[bytes] = field(default_factory=list)
    position: int = 0
    pending: list[Callable[[], object]] = field(default_factory=list)
    window: int = sys.maxsize
    """How many rows of a stream a backlog begins with."""

    def commit(self) -> None:
        for apply in self.pending:
            apply()
        self.pending.clear()

    def crash(self) -> None:
        self.pending.clear()

    def backlog(self, stream: str, *, max_bytes: int = 1 << 30, drops_oldest: bool = False) -> Backlog:
        backlog = Backlog(stream, Blobs(), max_bytes, drops_oldest)
        backlog.totals = replace(self.totals.get(stream, Totals()))
        for (owner, number), run in sorted(self.runs.items(), key=lambda item: item[0]):
            if owner == stream:
                backlog.runs[number] = replace(run)
                backlog.last_run_number = number
        for owner, rows in self._waiting().items():
            stamped = max((at for at, row in enumerate(rows, 1) if row.base_sequence is not None), default=0)
            first, beyond = rows[: max(self.window, stamped)], Beyond()
            for row in rows[len(first) :]:
                beyond.append(row)
            backlog.blobs.adopt(first, beyond)
            if owner == stream:
                backlog.adopt(first, beyond)
        backlog.blobs.start_after(max(self.rows, default=0), max(self.blobs, default=0))
        return backlog

    def _waiting(self) -> dict[str, list[Row]]:
        found: dict[str, list[Row]] = defaultdict(list)
        for _, (owner, row) in sorted(self.rows.items(), key=lambda item: (item[1][1].run, item[0])):
            found[owner].append(replace(row, payload=None, committed_at=0.0))
        return found

    def read(self, stream: str, segment: Segment) -> list[Row]:
        """What a backlog asked for, with everything in effect that was committed."""
        rows = self._waiting()[stream]
        return [row for row in rows if row.run == segment.run and segment.first_id <= row.id <= segment.last_id]

    def put_position(self, position: int) -> None:
        self.pending.append(lambda: setattr(self, "position", position))

    def put_blob(self, blob: int, payload: bytes) -> None:
        self.pending.append(lambda: self.blobs.__setitem__(blob, payload))

    def delete_blob(self, blob: int) -> None:
        self.pending.append(lambda: self.blobs.pop(blob))

    def delete_blobs(self, first: int, last: int) -> None:
        self.pending.append(lambda: [self.blobs.pop(blob) for blob in range(first, last + 1)])

    def put_row(self, stream: str, row: Row) -> None:
        copy = replace(row)
        self.pending.append(lambda: self.rows.__setitem__(copy.id, (stream, copy)))

    def delete_row(self, row: Row) -> None:
        self.pending.append(lambda: self.rows.pop(row.id))

    def delete_rows(self, stream: str, run: int, first: int, last: int) -> None:
        def delete() -> None:
            for row_id, (owner, row) in list(self.rows.items()):
                if (owner, row.run) == (stream, run) and first <= row_id <= last:
                    del self.rows[row_id]

        self.pending.append(delete)

    def put_run(self, stream: str, run: Run) -> None:
        copy = replace(run)
        self.pending.append(lambda: self.runs.__setitem__((stream, copy.number), copy))

    def delete_run(self, stream: str, run: Run) -> None:
        self.pending.append(lambda: self.runs.pop((stream, run.number)))

    def put_totals(self, stream: str, totals: Totals) -> None:
        copy = replace(totals)
        self.pending.append(lambda: self.totals.__setitem__(stream, copy))

    def delete_dead_letter(self, dead_letter: int) -> None:
        self.pending.append(lambda: self.dead.pop(dead_letter))

    def put_dead_letter(self, stream: str, row: Row, code: str, text: str) -> None:
        self.pending.append(lambda: self.dead.append(self.blobs[row.blob]))
