"""Backlogs that keep only a few batches in memory, so that a test need not make thousands."""

from __future__ import annotations

from importlib import import_module

import pytest

from logfwd.spool.rows import ROW_ID_STEP


def sizes(rows: int) -> dict[str, int]:
    return {
        "backlog.WINDOW_ROWS": rows,
        "waiting.WINDOW_ROWS": rows,
        "backlog.LEAST_ROWS": rows // 2,
        "beyond.SEGMENT_ROWS": 2,
        "waiting.BUCKET_IDS": 3 * ROW_ID_STEP,
    }


def small(monkeypatch: pytest.MonkeyPatch, rows: int = 4) -> None:
    """Keep `rows` batches in memory, and read on, two at a time, when half of them are left."""
    for name, size in sizes(rows).items():
        monkeypatch.setattr(f"logfwd.spool.{name}", size)


def make_small(rows: int = 4) -> None:
    """The same for the rest of a process."""
    for name, size in sizes(rows).items():
        module, attribute = name.split(".")
        setattr(import_module(f"logfwd.spool.{module}"), attribute, size)
