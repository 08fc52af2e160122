"""`logfwd spool`: list, print and check what is waiting on this host's disk; requeue dead letters; remove remains.

Everything except `requeue`, `set-aside` and `rm` uses a read-only connection and works while the forwarder runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import click

from logfwd.commands.spool_rm import rm
from logfwd.commands.spool_set_aside import set_aside
from logfwd.commands.spools import file_of, reading, spool_command, spools_of, streams_in, without_forwarder
from logfwd.config import ForwarderConfig
from logfwd.sources.position import FILE, Mark
from logfwd.spool.schema import TOTALS, rows
from logfwd.spool.verify import verify
from streams import program
from streams.columns import aligned
from streams.errors import BatchCorrupt
from streams.records import batch as recordbatch
from streams.records.printed import for_terminal, printed

MOST_BYTES = 64 * 1024 * 1024
"""Largest size of a batch after decompression."""


@click.group(short_help="Inspect the spools, requeue dead letters, delete remains.")
def spool() -> None:
    """Inspect the spools, requeue batches that could not be stored, and delete what removed streams left.

    A stream's batches wait in state_dir/STREAM.spool (a twin's in the file of its original) until a receiver has stored
    them. Batches that can never be stored, for example because even a single record is too large for the topic, are
    moved to the dead letters: export them, or fix the topic and requeue them.

    All commands except requeue, set-aside and rm only read, and work while the forwarder runs.
    """


spool.add_command(rm)
spool.add_command(set_aside)


@spool.command("ls")
@spool_command
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array with ids, totals and file positions.")
def list_spools(config: ForwarderConfig, as_json: bool) -> None:
    """List every stream that has a spool.

    Prints the number of waiting batches, records and bytes, the number of runs, when the oldest waiting batch was read
    (UTC), the records in dead letters, and the number of stored file positions.
    """
    rows: list[dict[str, Any]] = []
    for path in spools_of(config):
        with reading(path) as connection:
            rows += [_summary(config, path, connection, stream) for stream in streams_in(path, connection)]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    titles = ["STREAM", "BATCHES", "RECORDS", "BYTES", "RUNS", "OLDEST", "DEAD LETTERS", "POSITIONS"]
    table = [titles] + [
        [
            row["stream"] + ("" if row["configured"] else " (not configured)"),
            *(str(row[key]) for key in ("batches", "records", "bytes", "runs")),
            row["oldest"] or "-",
            str(row["dead_letter_records"]),
            str(len(row["positions"])),
        ]
        for row in rows
    ]
    for line in aligned(table, numbers_from=len(titles)):
        program.say(line)


@spool.command()
@spool_command
@click.argument("stream")
@click.option(
    "--records",
    default=10,
    show_default=True,
    type=click.IntRange(0),
    help="Print at most N records; 0 lists all batches without records.",
    metavar="N",
)
def show(config: ForwarderConfig, stream: str, records: int) -> None:
    """Print STREAM's waiting batches with their records.

    They are in the order in which they will be sent. Each batch starts with a line "# batch …" that shows its run,
    records, bytes, time of reading (UTC) and sequences.
    """
    with reading(file_of(config, stream)) as connection:
        left = records
        for row_id, run, count, size, sequence, payload in connection.execute(
            "SELECT batches.id, run, record_count, size, base_sequence, payload "
            "FROM batches JOIN blobs ON blobs.id = blob WHERE stream = ? ORDER BY run, batches.id",
            (stream,),
        ):
            stamp = "not stamped" if sequence is None else f"sequences {sequence} to {sequence + count - 1}"
            about = f"{count} records, {size} bytes, read {_read_at(payload)}, {stamp}"
            program.say(f"# batch {row_id}: run {run}, {about}")
            try:
                for number, value in enumerate(_values(payload, to_terminal=sys.stdout.isatty())):
                    if number >= left:
                        break
                    click.echo(value)
            except BatchCorrupt as error:
                program.say(f"# damaged: {error}")
            left = max(left - count, 0)
            if left == 0 and records > 0:
                break


@spool.command("verify")
@spool_command
@click.argument("stream")
def verify_spool(config: ForwarderConfig, stream: str) -> None:
    """Check STREAM's spool file for damage.

    Checks the database, the references between its tables, the totals, and the CRC of every batch. Prints one line for
    each problem, then the counts of what was checked. Exits with 1 if there is a problem. Nothing needs to be repaired
    by hand: when the forwarder meets the damage, it puts everything intact into a new file and keeps the damaged one as
    STREAM.spool.damaged-TIME.
    """
    path = file_of(config, stream)
    with reading(path) as connection:
        report = verify(connection)
    for problem in report.problems:
        program.say(f"{path}: {problem}")
    counts = f"{report.batches} batches, {report.blobs} payloads, {report.dead_letters} dead letters checked"
    program.say(f"{path}: {counts}; {len(report.problems) or 'no'} problems")
    if report.problems:
        sys.exit(1)


@spool.command()
@spool_command
@click.argument("stream")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="File to create; - writes to stdout."
)
@click.option("--dead-letters", is_flag=True, help="Export the dead letters instead of the waiting batches.")
def export(config: ForwarderConfig, stream: str, out: Path, dead_letters: bool) -> None:
    """Write STREAM's waiting records, one per line, in order.

    A record that is not a JSON object is written as {"record_base64": "…"}.

    They stay in the spool. Damaged batches are skipped and reported on stderr; the exit code is then 1.
    """
    sql = (
        "SELECT id, payload FROM dead_letters WHERE stream = ? ORDER BY id"
        if dead_letters
        else "SELECT batches.id, payload FROM batches JOIN blobs ON blobs.id = blob WHERE stream = ? "
        "ORDER BY run, batches.id"
    )
    written, damaged = 0, 0
    with reading(file_of(config, stream)) as connection, _output(out) as file:
        for row_id, payload in connection.execute(sql, (stream,)):
            try:
                lines = b"".join(value + b"\n" for value in _values(payload, to_terminal=file.isatty()))
            except BatchCorrupt as error:
                damaged += 1
                program.say(f"{'dead letter' if dead_letters else 'batch'} {row_id} is damaged: {error}", err=True)
                continue
            file.write(lines)
            written += lines.count(b"\n")
    program.say(f"exported {written} records" + (f", skipped {damaged} damaged batches" if damaged else ""), err=True)
    if damaged:
        sys.exit(1)


@spool.command()
@spool_command
@click.argument("stream")
@click.option("--id", "letter", type=int, help="Requeue only this dead letter (`ls --json` shows the ids).")
def requeue(config: ForwarderConfig, stream: str, letter: int | None) -> None:
    """Put STREAM's dead letters back into its spool.

    They become new batches at the end of it. Stop the forwarder first. Remove the cause first, too, or the batches
    become dead letters again. Damaged ones stay where they are; the exit code is then 1.
    """
    from logfwd.spool.requeue import requeue as requeue_letters
    from streams.telemetry import logs

    path = file_of(config, stream)
    with without_forwarder(config, "requeue"):
        logs.configure(level="warning")
        done, damaged = asyncio.run(requeue_letters(path, stream, letter))
    for problem in damaged:
        program.say(problem, err=True)
    if letter is not None and not done and not damaged:
        raise click.ClickException(f"stream {stream} has no dead letter {letter}")
    program.say(f"requeued {done} records")
    if damaged:
        sys.exit(1)


# -- printing --------------------------------------------------------------------------------------------------


def _summary(config: ForwarderConfig, path: Path, connection: sqlite3.Connection, stream: str) -> dict[str, Any]:
    def one(sql: str) -> Any:
        return connection.execute(sql, (stream,)).fetchone()

    batches, records, size = one(
        "SELECT count(*), coalesce(sum(record_count), 0), coalesce(sum(size), 0) FROM batches WHERE stream = ?"
    )
    head = one(
        "SELECT substr(payload, 1, 61) FROM batches JOIN blobs ON blobs.id = blob WHERE stream = ? "
        "ORDER BY run, batches.id LIMIT 1"
    )
    letters = connection.execute(
        "SELECT id, code, text, at_ms, record_count FROM dead_letters WHERE stream = ? ORDER BY id", (stream,)
    ).fetchall()
    totals = {name: sums for name, *sums in rows(connection, "totals")}.get(stream, [0] * len(TOTALS))
    own = stream == path.stem
    return {
        "stream": stream,
        "file": str(path),
        "twin_of": None if own else path.stem,
        "configured": any(found.name == stream for found in config.streams),
        "batches": batches,
        "records": records,
        "bytes": size,
        "runs": one("SELECT count(*) FROM runs WHERE stream = ?")[0],
        "oldest": None if head is None else _read_at(head[0]),
        "dead_letter_records": sum(count for *_, count in letters),
        "dead_letters": [
            {"id": id_, "code": code, "text": text, "at": _utc(at_ms), "records": count}
            for id_, code, text, at_ms, count in letters
        ],
        "positions": [_position(*row) for row in rows(connection, "positions", "ORDER BY key")] if own else [],
        "totals": dict(zip(TOTALS, totals, strict=True)),
    }


def _position(key: str, source: str, value: bytes, expires: float | None) -> dict[str, Any]:
    """A position as JSON. The offset of a file is how far its records are spooled or stored."""
    found: dict[str, Any] = {"key": key, "source": source}
    if source == FILE and (mark := Mark.decode(value)) is not None:
        found["offset"] = mark.offset
    if expires is not None:
        found["expires"] = _utc(int(expires * 1000))
    return found


def _read_at(payload: bytes) -> str:
    """When the newest record of a batch was read."""
    try:
        return _utc(recordbatch.parse_header(payload).max_timestamp)
    except BatchCorrupt:
        return "?"


def _utc(at_ms: int) -> str:
    try:
        return datetime.datetime.fromtimestamp(at_ms / 1000, datetime.UTC).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):
        return "?"


def _values(payload: bytes, *, to_terminal: bool) -> Iterator[bytes]:
    for record in recordbatch.iterate(payload, max_bytes=MOST_BYTES):
        line = printed(record.value or b"")
        yield for_terminal(line) if to_terminal else line


@contextlib.contextmanager
def _output(out: Path) -> Iterator[BinaryIO]:
    if str(out) == "-":
        yield sys.stdout.buffer
        return
    try:
        file = out.open("xb")
    except FileExistsError:
        raise click.ClickException(f"{out} exists already; name a new file") from None
    with file:
        yield file
