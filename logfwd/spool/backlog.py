"""One stream's unacknowledged batches: runs, rows in order, stamps. It decides; it does no I/O.

The event loop owns this picture. Every change is made here and recorded in a `Changes` at the same time; the spool
commits these notes in the order they were made, and nothing that depends on a note is sent before its commit. After a
failed commit the picture is discarded and read again from the disk.

Invariants, per stream:

* rows are in the order of sealing; the rows of a run are contiguous, runs in ascending order;
* of many batches only the first are rows, the others are known by their sums (`beyond.py`); these are not stamped;
* within a run stamped rows come first, and their sequences follow each other without a gap;
* a stamp is permanent (it may have been sent), so only unstamped rows may be dropped or moved to another run;
* each boot seals into a run of its own: a cloned spool can never use a sequence twice for different records.

Sequences are unbounded here; they are reduced to 31 bits only when a batch is stamped or compared.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import msgspec

from logfwd.spool.beyond import LEAST_ROWS, WINDOW_ROWS, Beyond, Segment
from logfwd.spool.blobs import Blobs
from logfwd.spool.keys import Keys
from logfwd.spool.rows import ROW_BYTES, ROW_ID_STEP, Changes, DeadLetters, Letter, Row, Run, Totals
from streams.records.batch import Packed

STAMP_STEP = 64
"""Most batches of a run that may be stamped and unacknowledged at a time: they can no longer be dropped or moved."""

MAX_PRODUCER_EPOCH = 32_766


class Backlog(msgspec.Struct):
    """One stream's share of a spool."""

    stream: str
    blobs: Blobs
    max_bytes: int
    drops_oldest: bool
    max_batches: int = sys.maxsize
    runs: dict[int, Run] = {}
    """By number, ascending: those that rows belong to, and the one that is being sealed into."""
    rows: deque[Row] = msgspec.field(default_factory=deque)
    """Waiting batches in the order in which they are sent; of many the first."""
    beyond: Beyond = msgspec.field(default_factory=Beyond)
    """The batches after `rows`. Everything new joins them as long as there are any."""
    totals: Totals = msgspec.field(default_factory=Totals)
    waiting_bytes: int = 0
    """Payload bytes of all waiting batches, each stream counting those that it shares."""
    waiting_records: int = 0
    """Records that are not yet acknowledged, dropped or dead-lettered."""
    acknowledged_bytes: int = 0
    """Since the spool was opened."""
    last_run_number: int = 0
    """Of the newest run; the next one gets the number after it."""
    sealing_run: Run | None = None
    """Takes new batches. None after an open, and after its reset: the next batch begins a new run."""
    keys: Keys = msgspec.field(default_factory=Keys)
    """Idempotency keys in the same file: they take part of the budget."""
    dead_letters: DeadLetters = msgspec.field(default_factory=DeadLetters)

    def adopt(self, rows: Iterable[Row], beyond: Beyond) -> None:
        """Take over what was read from the disk. `blobs` has counted it already."""
        self.rows.extend(rows)
        self.beyond = beyond
        self.waiting_bytes = sum(part.size for part in (*self.rows, *beyond))
        self.waiting_records = sum(row.record_count for row in self.rows) + sum(part.records for part in beyond)

    @property
    def waiting_batches(self) -> int:
        """Batches that are not yet acknowledged, dropped or dead-lettered."""
        return len(self.rows) + self.beyond.rows

    @property
    def oldest_sealed_at(self) -> float | None:
        """When the oldest waiting batch was sealed; None if there is none, or if an earlier process sealed it."""
        return self.rows[0].sealed_at if self.rows else self.beyond.first_sealed_at

    # -- reading on --------------------------------------------------------------------------------------------

    def next_segment(self) -> Segment | None:
        """Batches to be read from the disk now; None if enough are in memory, or if they are being read already."""
        if (segment := self.beyond.first) is None or segment.is_closed or len(self.rows) > LEAST_ROWS:
            return None
        segment.is_closed = True
        return segment

    def take(self, segment: Segment, rows: Sequence[Row]) -> None:
        """The batches of `next_segment`, as they are on disk; SpoolCorrupt if they are others."""
        if self.beyond.first is not segment:
            return  # dropped meanwhile
        segment.check(rows)
        self.beyond.pop()
        for index, row in enumerate(rows):
            row.sealed_at = segment.sealed_at(index)
            row.committed_at = row.sealed_at or 0.0
            self.blobs.take(row.blob)
        self.rows.extend(rows)

    # -- filling -----------------------------------------------------------------------------------------------

    def has_room(self, size: int) -> bool:
        """False while the policy is to block and a limit is reached."""
        return self.drops_oldest or not self.full_limit(size)

    def full_limit(self, size: int) -> str:
        """The limit that keeps out a batch of this size; empty if there is none, as for any batch when none waits."""
        if not self.waiting_batches or (size <= self.room_bytes and self.waiting_batches < self.max_batches):
            return ""
        return "max_spool_bytes" if size > self.room_bytes else "max_waiting_batches"

    @property
    def room_bytes(self) -> int:
        """How large a batch the budget has room for; less than 0 if there is none."""
        return self.max_bytes - self.waiting_bytes - ROW_BYTES * (self.waiting_batches + 1) - self.keys.byte_count

    def can_keep(self, sizes: Sequence[int]) -> bool:
        """True if `accept` would keep batches of these sizes, all of them: what cannot be dropped leaves them room."""
        needed = sum(sizes) + ROW_BYTES * (len(sizes) - 1)
        if not self.drops_oldest or needed <= self.room_bytes:
            return True
        stamped = sum(row.size + ROW_BYTES for row in self.rows if row.base_sequence is not None)
        room = self.max_bytes - stamped - ROW_BYTES - self.keys.byte_count
        return needed <= room or (len(sizes) == 1 and not stamped)

    def accept(
        self, packed: Sequence[Packed], blobs: Sequence[int], invalid: int, sealed_at: float, changes: Changes
    ) -> list[Row]:
        """Accept sealed batches whose blobs were added before; returns the rows that the budget let in."""
        kept: list[Row] = []
        for batch, blob in zip(packed, blobs, strict=True):
            self.totals.accepted += batch.record_count
            if not self._make_room(len(batch.payload), changes):
                self.totals.dropped += batch.record_count
                continue
            row = Row(
                self.blobs.next_row_id(),
                self._run_to_seal(changes).number,
                blob,
                *(batch.record_count, len(batch.payload)),
                payload=batch.payload,
                sealed_at=sealed_at,
                committed_at=None,
            )
            self._append(row, changes)
            kept.append(row)
        self.totals.invalid += invalid
        changes.put_totals(self.stream, self.totals)
        return kept

    def _append(self, row: Row, changes: Changes) -> None:
        self.waiting_bytes += row.size
        self.waiting_records += row.record_count
        if self.beyond.rows or len(self.rows) >= WINDOW_ROWS:
            self.beyond.append(row)
        else:
            if self._may_stamp_at_once(run := self.runs[row.run]):
                self._stamp_row(run, row)
                changes.put_run(self.stream, run)
            self.rows.append(row)
            self.blobs.take(row.blob)
        changes.put_row(self.stream, row)

    def _may_stamp_at_once(self, run: Run) -> bool:
        """True if a new row of the run would follow stamped ones, and these are few: the link keeps up."""
        newest = [row for row in islice(reversed(self.rows), STAMP_STEP) if row.run == run.number]
        all_stamped = not newest or newest[0].base_sequence is not None
        return run.granted and all_stamped and len(newest) < STAMP_STEP

    def _run_to_seal(self, changes: Changes) -> Run:
        if self.sealing_run is None:
            self.last_run_number += 1
            self.sealing_run = self.runs[self.last_run_number] = Run(self.last_run_number)
            changes.put_run(self.stream, self.sealing_run)
        return self.sealing_run

    def _make_room(self, size: int, changes: Changes) -> bool:
        """True if the batch may be accepted; drops the oldest unstamped batches where that is the policy."""
        while self.drops_oldest and self.full_limit(size):
            oldest = next((row for row in self.rows if row.base_sequence is None), None)
            if oldest is not None:
                self.totals.dropped += oldest.record_count
                self._remove(oldest, changes)
            elif self.beyond.rows:
                self._drop_segment(changes)
            else:
                return False
        return True

    def _drop_segment(self, changes: Changes) -> None:
        """Drop the oldest batches beyond those in memory, which are all stamped or dropped."""
        segment = self.beyond.pop()
        self.totals.dropped += segment.records
        self.waiting_records -= segment.records
        self.waiting_bytes -= segment.size
        changes.delete_rows(self.stream, segment.run, segment.first_id, segment.last_id)
        self.blobs.discard_segment(segment, changes)

    # -- sending -----------------------------------------------------------------------------------------------

    def head_run(self) -> Run | None:
        """The run that must be acknowledged before any other may be sent."""
        return self.runs[self.rows[0].run] if self.rows else None

    def partition(self) -> int:
        """The partition of the newest grant, which later runs keep; −1 before the first grant."""
        return next((run.partition for run in reversed(self.runs.values()) if run.partition >= 0), -1)

    def _rows_of(self, run: Run) -> Iterator[Row]:
        for row in self.rows:
            if row.run == run.number:
                yield row
            elif row.run > run.number:
                return

    def stamped(self, run: Run) -> Iterator[Row]:
        """Rows of a run that may have been sent, in order."""
        for row in self._rows_of(run):
            if row.base_sequence is None:
                return
            yield row

    def grant(self, run: Run, granted: Run, changes: Changes) -> None:
        """Store the producer id that a receiver granted to a run; nothing of the run may be sent before the commit."""
        assert not run.granted
        run.cluster_id, run.topic, run.topic_id = granted.cluster_id, granted.topic, granted.topic_id
        run.partition, run.producer_id, run.grant = granted.partition, granted.producer_id, granted.grant
        changes.put_run(self.stream, run)

    def stamp(self, run: Run, changes: Changes) -> list[Row]:
        """Give sequences to the next batches of a run, up to STAMP_STEP unacknowledged ones."""
        rows = [row for row in islice(self._rows_of(run), STAMP_STEP) if row.base_sequence is None]
        for row in rows:
            self._stamp_row(run, row)
            changes.put_row(self.stream, row)
        if rows:
            changes.put_run(self.stream, run)
        return rows

    @staticmethod
    def _stamp_row(run: Run, row: Row) -> None:
        row.base_sequence = run.next_sequence
        run.next_sequence += row.record_count

    def acknowledge(self, row: Row, changes: Changes) -> list[Row]:
        """A batch is stored, and so is everything before it in its run. Returns the rows that are removed."""
        run, leaving = self.runs[row.run], list(islice(self.rows, self.rows.index(row) + 1))
        for done in leaving:
            self.totals.acknowledged += done.record_count
            self.acknowledged_bytes += done.size
            self._remove(done, changes)
        run.last_acknowledged_sequence = row.last_sequence
        changes.put_run(self.stream, run)
        changes.put_totals(self.stream, self.totals)
        return leaving

    def forget_finished_runs(self, changes: Changes) -> None:
        """Delete runs that have nothing left to send, except the one that is being sealed into."""
        busy = {part.run for part in (*self.rows, *self.beyond)}
        for run in [r for r in self.runs.values() if r.number not in busy and r is not self.sealing_run]:
            del self.runs[run.number]
            changes.delete_run(self.stream, run)

    # -- repairs (exactly-once.md, rules 10 and 11) --------------------------------------------------------------

    def split(self, row: Row, halves: tuple[Packed, Packed], changes: Changes) -> None:
        """Replace a batch by its two halves, in the same run and with the sequences of the whole."""
        index = self.rows.index(row)
        end = (row.id // ROW_ID_STEP + 1) * ROW_ID_STEP  # ids from there on belong to a twin or to later batches
        if index + 1 < len(self.rows):
            end = min(end, self.rows[index + 1].id)
        elif self.beyond.first is not None:
            end = min(end, self.beyond.first.first_id)
        self._remove(row, changes)
        ids = (row.id, row.id + max((end - row.id) // 2, 1))
        sequence = row.base_sequence
        for offset, (row_id, half) in enumerate(zip(ids, halves, strict=True)):
            new = row.half(row_id, self.blobs.add(half.payload, changes), half, sequence)
            sequence = None if sequence is None else sequence + half.record_count
            self.rows.insert(index + offset, new)
            self.waiting_bytes += new.size
            self.waiting_records += new.record_count
            self.blobs.take(new.blob)
            changes.put_row(self.stream, new)

    def dead_letter(self, row: Row, code: str, text: str, changes: Changes) -> None:
        """Move a batch that can never be stored to the dead letters. Leaves a gap: the run must be reset."""
        changes.put_dead_letter(self.stream, row, code, text)
        self.totals.dead_lettered += row.record_count
        self.dead_letters.add(row)
        self._remove(row, changes)
        changes.put_totals(self.stream, self.totals)

    def drop_dead_letter(self, letter: Letter, changes: Changes) -> None:
        """Give up the oldest dead letter for a newer one."""
        self.dead_letters.remove(letter)
        changes.delete_dead_letter(letter.id)
        self.totals.dead_lettered -= letter.record_count
        self.totals.dropped += letter.record_count
        changes.put_totals(self.stream, self.totals)

    def requeue(self, batch: Packed, blob: int, changes: Changes) -> None:
        """Take a dead letter back as a new batch at the end; its records are in the totals already."""
        (row,) = self.accept([batch], [blob], 0, 0.0, changes)
        row.payload = None
        self.totals.accepted -= batch.record_count
        self.totals.dead_lettered -= batch.record_count
        changes.put_totals(self.stream, self.totals)

    def reset(self, run: Run, changes: Changes, *, new_producer: bool) -> int:
        """Start a run's sequences over; returns how many batches may be stored twice if they were uncertain.

        The next producer epoch fences off late copies. Later batches go into another run, so that two clones of this
        spool that are both reset never use one sequence for different records.
        """
        rows = list(self.stamped(run))
        run.next_sequence, run.last_acknowledged_sequence = 0, -1
        if new_producer or run.producer_epoch >= MAX_PRODUCER_EPOCH:
            run.producer_id, run.producer_epoch, run.grant = -1, 0, b""
            for row in rows:
                row.base_sequence = None
        else:
            run.producer_epoch += 1
            for row in rows:
                self._stamp_row(run, row)
        for row in rows:
            changes.put_row(self.stream, row)
        if self.sealing_run is run:
            self.sealing_run = None
        self.totals.resets += 1
        changes.put_run(self.stream, run)
        changes.put_totals(self.stream, self.totals)
        return len(rows)

    def _remove(self, row: Row, changes: Changes) -> None:
        if self.rows[0] is row:
            self.rows.popleft()
        else:
            self.rows.remove(row)
        self.waiting_bytes -= row.size
        self.waiting_records -= row.record_count
        changes.delete_row(row)
        self.blobs.release(row.blob, changes)
