"""Everything readable in a damaged spool goes into a new one; the damaged file is kept and never changed.

The promises, in this order: only intact data is taken over (every batch's CRC is checked); no sequence is used again
for other records (a run whose stamps no longer fit together loses them and gets a new producer id); and nothing intact
is left behind, even if it may be stored twice as a result. Lost records are counted as dropped, so that
accepted = acknowledged + waiting + dropped + dead_lettered still holds.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import structlog

from logfwd.spool.file import install, making
from logfwd.spool.first_page import readable
from logfwd.spool.rows import ROW_ID_STEP, Row, Run, Totals
from logfwd.spool.schema import (
    SCHEMA_VERSION,
    SHAPES,
    converted,
    insert,
    run_row,
    tables_of,
    totals_row,
    version_of,
)
from streams.errors import BatchCorrupt, SpoolCorrupt
from streams.records import batch as recordbatch

log = structlog.get_logger("logfwd.spool")


class Salvaged(msgspec.Struct):
    """What went into the new file.

    `lost`: number of records that did not, by stream; they are counted as dropped.
    `repeats_possible`: streams that may have records stored twice.
    """

    kept_as: Path | None = None
    batches: int = 0
    records: int = 0
    runs: int = 0
    positions: int = 0
    keys: int = 0
    dead_letters: int = 0
    lost: Counter[str] = msgspec.field(default_factory=Counter)
    positions_lost: bool = False
    repeats_possible: set[str] = set()


def replace_damaged(path: Path, reason: str, suspect: Path) -> Salvaged:
    """Replace a damaged spool by a new one with everything that could be salvaged, and log that in one line.

    `suspect` is the marker that the file is damaged; it is deleted as soon as the new file is complete.
    """
    with making(path) as fresh, readable(path) as old:
        salvaged = Salvage(path.stem, old, fresh).run()
    suspect.unlink(missing_ok=True)
    salvaged.kept_as = install(path)
    log.error(
        "damaged spool set aside",
        spool=str(path),
        kept_as=str(salvaged.kept_as),
        reason=reason,
        salvaged_batches=salvaged.batches,
        salvaged_records=salvaged.records,
        salvaged_runs=salvaged.runs,
        salvaged_positions=salvaged.positions,
        salvaged_keys=salvaged.keys,
        salvaged_dead_letters=salvaged.dead_letters,
        lost_records=salvaged.lost.total(),
        positions="some or all are lost: files are read from start_at again" if salvaged.positions_lost else "intact",
        may_be_stored_twice=sorted(salvaged.repeats_possible),
    )
    return salvaged


class Salvage:
    """Copies the intact contents of one spool into another."""

    def __init__(self, original: str, old: sqlite3.Connection, fresh: sqlite3.Connection) -> None:
        self._original, self._old, self._fresh = original, old, fresh
        self._version = _version(old)
        self._broken: set[str] = set()
        self._blobs: dict[int, tuple[int, int] | None] = {}
        self._done = Salvaged()

    def run(self) -> Salvaged:
        self._meta_and_positions()
        self._keys()
        dead = self._dead_letters()
        batches = self._batches()
        self._adopt_orphans(batches)
        self._put_runs(batches)
        self._totals(batches, dead)
        return self._done

    # -- reading -----------------------------------------------------------------------------------------------

    def _read(self, table: str) -> Iterator[tuple[Any, ...]]:
        """Valid rows, from the front up to the damage, then from the back down to it."""
        if table not in tables_of(self._version):
            return
        seen: set[int] = set()
        for direction in ("ASC", "DESC"):
            last: int | None = None
            try:
                for rowid, *row in self._old.execute(f"SELECT rowid, * FROM {table} ORDER BY rowid {direction}"):  # noqa: S608
                    if last is not None and (rowid <= last if direction == "ASC" else rowid >= last):
                        raise SpoolCorrupt(f"rows of {table} are out of order")
                    last = rowid
                    if rowid not in seen and (good := self._good(table, tuple(row))) is not None:
                        seen.add(rowid)
                        yield good
                return
            except (sqlite3.Error, SpoolCorrupt, OverflowError, UnicodeDecodeError):
                self._broken.add(table)

    def _good(self, table: str, row: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if table not in SHAPES:
            return row
        try:
            return converted(self._version, table, row)
        except SpoolCorrupt:
            self._broken.add(table)
            return None

    def _put(self, table: str, *values: object) -> None:
        self._fresh.execute(insert(table, "OR IGNORE"), values)

    # -- table by table ----------------------------------------------------------------------------------------

    def _meta_and_positions(self) -> None:
        for key, value in self._read("meta"):
            if key in ("forwarder_id", "definition") and value:
                self._put("meta", key, value)
        for row in self._read("positions"):
            self._put("positions", *row)
            self._done.positions += 1
        self._done.positions_lost = "positions" in self._broken

    def _keys(self) -> None:
        """If a key is lost, a repeated request may be stored twice."""
        for number, (_, *values) in enumerate(sorted(self._read("keys")), 1):
            self._put("keys", number, *values)
            self._done.keys = number
        if "keys" in self._broken:
            self._done.repeats_possible.add(self._original)

    def _dead_letters(self) -> dict[str, int]:
        counts: dict[str, int] = defaultdict(int)
        for id_, stream, run, code, text, at_ms, count, payload in self._read("dead_letters"):
            if code == "rotten" or _measure(payload) is not None:
                self._put("dead_letters", id_, stream, run, code, text, at_ms, count, payload)
                self._done.dead_letters += 1
                counts[stream] += count
        return counts

    def _batches(self) -> dict[str, list[Row]]:
        """Readable rows with an intact batch, in order, by stream. Counts and sizes are those of the batch itself."""
        found: dict[str, list[Row]] = defaultdict(list)
        taken: set[tuple[str, int]] = set()
        for id_, stream, run, blob, _, _, sequence in self._read("batches"):
            if (stream, blob) not in taken and (measure := self._take_blob(blob)) is not None:
                taken.add((stream, blob))
                found[stream].append(Row(id_, run, blob, *measure, sequence))
        for batches in found.values():
            batches.sort(key=lambda row: (row.run, row.id))
        return found

    def _take_blob(self, blob: int) -> tuple[int, int] | None:
        """Copy an intact payload into the new file; returns its number of records and bytes, None if it is damaged."""
        if blob not in self._blobs:
            self._blobs[blob] = None
            with contextlib.suppress(sqlite3.Error):
                row = self._old.execute("SELECT payload FROM blobs WHERE id = ?", (blob,)).fetchone()
                self._blobs[blob] = _measure(row[0]) if row else None
                if self._blobs[blob] is not None:
                    self._put("blobs", blob, row[0])
        return self._blobs[blob]

    def _adopt_orphans(self, found: dict[str, list[Row]]) -> None:
        """Payloads whose rows were lost. A payload is deleted with its last row, so these were still waiting."""
        from_both_ends = chain(
            self._numbers("SELECT id FROM blobs ORDER BY id"), self._numbers("SELECT id FROM blobs ORDER BY id DESC")
        )
        orphans = [
            (blob, measure)
            for blob in from_both_ends
            if blob not in self._blobs and (measure := self._take_blob(blob)) is not None
        ]
        if not orphans:
            return
        rows = [row for batches in found.values() for row in batches]
        run = max([*self._numbers("SELECT max(number) FROM runs"), *(row.run for row in rows)], default=0) + 1
        last_id = max((row.id for row in rows), default=0) // ROW_ID_STEP
        for number, (blob, measure) in enumerate(sorted(orphans), 1):
            found[self._original].append(Row((last_id + number) * ROW_ID_STEP, run, blob, *measure))
        self._done.repeats_possible.add(self._original)

    def _numbers(self, sql: str) -> Iterator[int]:
        with contextlib.suppress(sqlite3.Error):
            yield from (number for (number,) in self._old.execute(sql) if isinstance(number, int))

    def _put_runs(self, found: dict[str, list[Row]]) -> None:
        runs = {(stream, rest[0]): Run(*rest) for stream, *rest in self._read("runs")}
        for stream, rows in found.items():
            for number in sorted({row.run for row in rows}):
                own = [row for row in rows if row.run == number]
                run = runs.get((stream, number))
                if run is None or not _fits(run, own):
                    if any(row.base_sequence is not None for row in own):
                        self._done.repeats_possible.add(stream)
                    runs[stream, number] = Run(number)
                    for row in own:
                        row.base_sequence = None
        for (stream, _), run in runs.items():
            self._put("runs", *run_row(stream, run))
        for stream, rows in found.items():
            for row in rows:
                self._put("batches", row.id, stream, row.run, row.blob, row.record_count, row.size, row.base_sequence)
                self._done.batches += 1
                self._done.records += row.record_count
        self._done.runs = len(runs)

    def _totals(self, found: dict[str, list[Row]], dead: dict[str, int]) -> None:
        """Totals that balance again: missing records are counted as dropped."""
        totals = {stream: Totals(*rest) for stream, *rest in self._read("totals")}
        if self._done.positions_lost:
            self._done.repeats_possible.update({self._original, *totals, *found})
        for stream in {*totals, *found, *dead, *self._done.repeats_possible}:
            sums = totals.get(stream, Totals(dead_lettered=dead.get(stream, 0)))
            waiting = sum(row.record_count for row in found.get(stream, []))
            missing = sums.accepted - sums.acknowledged - sums.dropped - sums.dead_lettered - waiting
            sums.dropped += max(missing, 0)
            sums.accepted += max(-missing, 0)
            sums.resets += stream in self._done.repeats_possible
            if missing > 0:
                self._done.lost[stream] += missing
            self._put("totals", *totals_row(stream, sums))


def _version(old: sqlite3.Connection) -> int:
    with contextlib.suppress(sqlite3.Error):
        return version_of(old)
    return SCHEMA_VERSION


def _measure(payload: object) -> tuple[int, int] | None:
    """Number of records and bytes of a batch; None if it is damaged."""
    if not isinstance(payload, bytes):
        return None
    try:
        return recordbatch.check(payload).record_count, len(payload)
    except BatchCorrupt:
        return None


def _fits(run: Run, rows: list[Row]) -> bool:
    """True if stamps ascend without overlap, stamped batches come first, and all are below the run's next sequence."""
    expected, unstamped = run.last_acknowledged_sequence + 1, False
    for row in rows:
        if row.base_sequence is None:
            unstamped = True
        elif unstamped or row.base_sequence < expected:
            return False
        else:
            expected = row.last_sequence + 1
    return expected <= run.next_sequence and (run.granted or expected == 0)
