"""Notes: the changes of one spool transaction, as SQL with the values at the time of writing.

The event loop writes them from its picture of the backlog; the spool's thread executes them, those of several batches
together. For anything with one current value (a run, totals, a position) only the last note is kept: nobody can see
the values in between, and each statement takes the interpreter's lock twice, competing with the sealing threads.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Mapping
from typing import Any

from logfwd.sources.keys import Key
from logfwd.sources.position import Position
from logfwd.spool.rows import Row, Run, Totals
from logfwd.spool.schema import insert, key_row, run_row, totals_row, upsert

_PUT_BLOB = "INSERT INTO blobs SELECT ?1, ?2 WHERE ?1 IS NOT NULL"
_NO_BLOB = (None, None)
"""SQLite keeps its copy of a payload in the statement until that gets other values."""
_PUT_ROW = insert("batches", "OR REPLACE")
_PUT_RUN = upsert("runs", "stream", "number")
_PUT_TOTALS = upsert("totals", "stream")
_PUT_POSITION = upsert("positions", "key")
_PUT_KEY = insert("keys")


class Notes:
    """The statements of one transaction."""

    def __init__(self) -> None:
        self.statements: list[tuple[str, tuple[Any, ...]]] = []
        self.has_expiring_positions = False
        self._current: dict[tuple[object, ...], tuple[str, tuple[Any, ...]]] = {}

    def add(self, later: Notes) -> None:
        """Append notes that were written after these."""
        self.statements += later.statements
        self._current |= later._current

    def carry_out(self, connection: sqlite3.Connection) -> None:
        """Execute them in a transaction that the caller has begun."""
        for sql, values in (*self.statements, *self._current.values()):
            connection.execute(sql, values)
        connection.execute(_PUT_BLOB, _NO_BLOB)

    def _note(self, sql: str, *values: object) -> None:
        self.statements.append((sql, values))

    def _note_current(self, key: tuple[object, ...], sql: str, *values: object) -> None:
        self._current[key] = (sql, values)

    def put_blob(self, blob: int, payload: bytes) -> None:
        self._note(_PUT_BLOB, blob, payload)

    def delete_blob(self, blob: int) -> None:
        self._note("DELETE FROM blobs WHERE id = ?", blob)

    def delete_blobs(self, first: int, last: int) -> None:
        self._note("DELETE FROM blobs WHERE id BETWEEN ? AND ?", first, last)

    def put_row(self, stream: str, row: Row) -> None:
        self._note(
            _PUT_ROW,
            row.id,
            stream,
            row.run,
            row.blob,
            row.record_count,
            row.size,
            row.base_sequence,
        )

    def delete_row(self, row: Row) -> None:
        self._note("DELETE FROM batches WHERE id = ?", row.id)

    def delete_rows(self, stream: str, run: int, first: int, last: int) -> None:
        sql = "DELETE FROM batches WHERE id BETWEEN ? AND ? AND stream = ? AND run = ?"
        self._note(sql, first, last, stream, run)

    def put_run(self, stream: str, run: Run) -> None:
        self._note_current(("run", stream, run.number), _PUT_RUN, *run_row(stream, run))

    def delete_run(self, stream: str, run: Run) -> None:
        sql = "DELETE FROM runs WHERE stream = ? AND number = ?"
        self._note_current(("run", stream, run.number), sql, stream, run.number)

    def put_totals(self, stream: str, totals: Totals) -> None:
        self._note_current(("totals", stream), _PUT_TOTALS, *totals_row(stream, totals))

    def put_dead_letter(self, stream: str, row: Row, code: str, text: str) -> None:
        self._note(
            "INSERT INTO dead_letters (stream, run, code, text, at_ms, record_count, payload) "
            "SELECT ?, ?, ?, ?, ?, ?, payload FROM blobs WHERE id = ?",
            stream,
            row.run,
            code,
            text,
            int(time.time() * 1000),
            row.record_count,
            row.blob,
        )

    def delete_dead_letter(self, dead_letter: int) -> None:
        self._note("DELETE FROM dead_letters WHERE id = ?", dead_letter)

    def put_positions(self, positions: Mapping[str, Position], forgotten: Iterable[str]) -> None:
        """Store a source's positions, and delete those that will never be needed again."""
        for key, position in positions.items():
            self._put_position(key, position)
        for key in forgotten:
            self._note_current(("position", key), "DELETE FROM positions WHERE key = ?", key)

    def _put_position(self, key: str, position: Position) -> None:
        self.has_expiring_positions |= position.expires is not None
        values = position.source, position.value, position.expires
        self._note_current(("position", key), _PUT_POSITION, key, *values)

    def delete_expired_positions(self, now: float) -> None:
        self._note("DELETE FROM positions WHERE expires <= ?", now)

    def put_key(self, row_id: int, key_hash: bytes, key: Key) -> None:
        self._note(_PUT_KEY, *key_row(row_id, key_hash, key))

    def delete_keys(self, through: int) -> None:
        self._note("DELETE FROM keys WHERE id <= ?", through)

    def delete_stream(self, stream: str) -> None:
        """Delete everything of a stream that is in use no more; payloads stay that another stream has."""
        for table in ("batches", "dead_letters", "runs", "totals"):
            self._note(f"DELETE FROM {table} WHERE stream = ?", stream)  # noqa: S608 (names of our own)
        self._note("DELETE FROM blobs WHERE id NOT IN (SELECT blob FROM batches)")
