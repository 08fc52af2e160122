"""Reads what a spool's file holds of dead letters, without their payloads."""

from __future__ import annotations

import sqlite3

from logfwd.spool.rows import ROW_BYTES, Letter
from streams.errors import SpoolCorrupt


def oldest(connection: sqlite3.Connection, stream: str) -> Letter | None:
    """A stream's oldest dead letter; None if it has none."""
    sql = "SELECT id, record_count, length(payload) FROM dead_letters WHERE stream = ? ORDER BY id LIMIT 1"
    found = connection.execute(sql, (stream,)).fetchone()
    if found is None:
        return None
    if not all(isinstance(value, int) for value in found):
        raise SpoolCorrupt(f"invalid row in dead_letters: {found}")
    return Letter(*found)


def bytes_by_stream(connection: sqlite3.Connection) -> dict[str, int]:
    """How much of its budget the dead letters of each stream take. SQLite reads only the payloads' lengths."""
    sql = "SELECT stream, sum(length(payload)), count(*) FROM dead_letters GROUP BY stream"
    return {stream: int(size or 0) + count * ROW_BYTES for stream, size, count in connection.execute(sql)}
