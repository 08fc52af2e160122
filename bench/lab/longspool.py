"""Spools of streams whose receiver was away for long, made within seconds: small batches, millions of them."""

from __future__ import annotations

import time
from pathlib import Path

from logfwd.spool.file import install, making
from logfwd.spool.rows import ROW_ID_STEP, Run, Totals
from logfwd.spool.schema import insert, run_row, totals_row
from streams.records.batch import Codec, build


def make(path: Path, batches: int) -> None:
    """A spool of the stream that `path` names, whose file must not exist: batches of one record, none ever sent."""
    stream = path.stem
    payload = build([b'{"message":"a quiet stream"}'], timestamp_ms=int(time.time() * 1000), codec=Codec.NONE)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with making(path) as connection:
        if batches:
            connection.execute(insert("runs"), run_row(stream, Run(1)))
        connection.executemany(insert("blobs"), ((number, payload) for number in range(1, batches + 1)))
        connection.executemany(
            insert("batches"),
            ((number * ROW_ID_STEP, stream, 1, number, 1, len(payload), None) for number in range(1, batches + 1)),
        )
        connection.execute(insert("totals"), totals_row(stream, Totals(accepted=batches)))
    install(path)
