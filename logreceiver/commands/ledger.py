"""`logreceiver ledger`: reads the ledger, asks the sink where entries alone leave a doubt, and prints."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path

import click

from logreceiver.commands.options import CONFIG, DIRECTORY, SKIP_DAMAGED, end_with_damage, load, stopped_at_damage
from logreceiver.config import Ledger
from logreceiver.ledger.answer import Account, Answer, Books, as_builtins, is_wrong
from logreceiver.ledger.records import decode
from logreceiver.sinks import Held, Reader, RunState
from logreceiver.sinks.log.damage import LogDamaged, Skip, stop
from logreceiver.sinks.make import make_reader
from logreceiver.sinks.settings import AnySink, LogSink
from streams import program
from streams.columns import aligned
from streams.errors import SinkUnavailable
from streams.telemetry import logs

Place = tuple[str, int, int]
"""Topic, partition, producer id."""


@click.command()
@click.argument("stream")
@CONFIG
@DIRECTORY
@click.option(
    "--identity",
    default="*",
    show_default=True,
    help="Report only forwarders whose identity matches this shell pattern.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@SKIP_DAMAGED
def ledger(stream: str, path: Path, directory: Path | None, identity: str, as_json: bool, skip_damaged: bool) -> None:
    """Count STREAM's records sent, stored, missing and stored twice.

    Covers its twins too, and shows the share of each TLS group. Reads the ledger from the configured sink, or from the
    embedded log in --directory, and asks the sink where the ledger alone leaves records unaccounted for. The embedded
    log is read as a whole: stored records that can no longer be read count as missing. Numbers are records; notes
    explain what is unknown.

    Exits with 1 if anything is missing or stored twice; with 65 if the ledger itself is damaged, also if that was
    skipped; and with 69 if there is no ledger or it does not mention STREAM.
    """
    logs.configure(level="warning")
    sink, topic = _ledger_in(path, directory)
    found: list[Answer] = []
    damaged: list[LogDamaged] = []
    skip = Skip()
    reader = make_reader(sink, on_damage=skip if skip_damaged else stop)

    async def read() -> None:
        try:
            found.extend(await answers(reader, topic, stream, identity))
        except LogDamaged as error:
            damaged.append(error)

    program.run(read)
    if damaged:
        stopped_at_damage(damaged[0])
    if not found:
        program.say(f"the ledger has no entry for stream {stream!r} from {identity}", err=True)
        sys.exit(program.EX_UNAVAILABLE)
    show(found, as_json_lines=as_json)
    if is_wrong(found):
        sys.exit(1)
    end_with_damage(skip.count)


def _ledger_in(path: Path, directory: Path | None) -> tuple[AnySink, str]:
    """The sink that holds the ledger, and its topic. A directory alone has it under the default name."""
    if directory is not None:
        return LogSink(directory=directory), Ledger().topic
    config = load(path)
    return config.sink, (config.ledger or Ledger()).topic


async def answers(reader: Reader, topic: str, stream: str, identity: str) -> list[Answer]:
    """What the ledger says, read to its end. SinkUnavailable if the sink or the ledger's topic cannot be read."""
    books = Books(stream)
    try:
        await reader.start()
        try:
            async for value in reader.read_all(topic):
                if (entry := decode(value)) is not None:
                    books.add([entry])
        except SinkUnavailable as error:
            raise SinkUnavailable(error.code, f"the ledger cannot be read: {error}") from error
        accounts = _of(books, identity)
        asked = [account for account in accounts if reader.asking_is_cheap or account.in_doubt]
        places = _places(asked)
        states = await asyncio.gather(*(_ask(reader, place) for place in places))
        tails = dict(zip(places, states, strict=True))
        await _compare(reader, topic, books, {place[:2] for place in _places(accounts)})
    finally:
        await reader.close()
    return [account.answer(tails if account in asked else None) for account in accounts]


async def _compare(reader: Reader, topic: str, books: Books, partitions: Iterable[tuple[str, int]]) -> None:
    """Look for records that the ledger says are stored, and that the sink cannot show: the ledger is read again."""
    held = {}
    for place in partitions:
        with contextlib.suppress(SinkUnavailable):
            held[place] = await reader.held(*place)
    if all(found == Held() for found in held.values()):
        return
    async for value in reader.read_all(topic):
        if (entry := decode(value)) is not None:
            books.compare(entry, held)


def _of(books: Books, identity: str) -> list[Account]:
    return [account for account in books.accounts() if fnmatchcase(account.identity, identity)]


def _places(accounts: list[Account]) -> list[Place]:
    return list(dict.fromkeys(key[:3] for account in accounts for key in account.runs))


async def _ask(reader: Reader, place: Place) -> RunState | None:
    try:
        return await reader.ask(*place)
    except SinkUnavailable:
        return None


# -- printing --------------------------------------------------------------------------------------------------


def show(answers: list[Answer], *, as_json_lines: bool) -> None:
    """Print to stdout: for people, or as one JSON document."""
    if as_json_lines:
        click.echo(json.dumps(as_builtins(answers), indent=2))
        return
    for answer in answers:
        _show_one(answer, several=sum(other.stream == answer.stream for other in answers) > 1)


def _show_one(answer: Answer, *, several: bool) -> None:
    twin = f", twin of {answer.twin_of}" if answer.twin_of else ""
    forwarder = f", forwarder {answer.forwarder_id}" if several else ""
    program.say(
        f"{answer.stream}: sent {_number(answer.sent)}, stored {_number(answer.stored)}, "
        f"missing {_number(answer.missing)}, twice {_number(answer.twice)}"
    )
    program.say(f"  from {answer.identity}{forwarder}{twin}, {_time(answer.first_ms)} to {_time(answer.last_ms)}")
    reported = "never" if answer.reported_ms is None else _time(answer.reported_ms)
    rows = [
        ("waiting", answer.waiting),
        ("dropped", answer.dropped),
        ("dead-lettered", answer.dead_lettered),
        ("resets", answer.resets),
        ("stored but not in the ledger", answer.not_in_ledger),
    ]
    program.say(f"  {', '.join(f'{name} {_number(value)}' for name, value in rows)}; last report: {reported}")
    table = [("mode", "group", "TLS", "authentication", "batches", "records", "", "bytes", "")]
    table += [
        (
            share.mode,
            share.group,
            share.tls_version,
            share.authentication or "–",
            _number(share.batches),
            _number(share.records),
            f"{share.records_percent:.2f} %",
            _number(share.bytes),
            f"{share.bytes_percent:.2f} %",
        )
        for share in answer.shares
    ]
    for line in aligned(table, numbers_from=4):
        program.say(f"    {line}")
    for note in answer.notes:
        program.say(f"  note: {note}")


def _number(value: int | None) -> str:
    return "unknown" if value is None else str(value)


def _time(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"
