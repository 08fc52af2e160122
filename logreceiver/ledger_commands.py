"""`logreceiver ledger`: reads the ledger, asks the sink where entries alone leave a doubt, and prints."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path

import click

from logreceiver import config
from logreceiver.ledger_answer import Account, Answer, Books, as_json
from logreceiver.ledger_records import Entry, decode
from logreceiver.sinks import RunState, Sink
from streams.errors import SinkUnavailable

Place = tuple[str, int, int]
"""Topic, partition, producer id."""


def answers_of_log(directory: Path, topic: str, stream: str, identity: str) -> list[Answer]:
    """From the embedded log, even while a receiver writes to it. FileNotFoundError if it has no ledger."""
    from logreceiver.sinks.log import read_records

    books = Books(stream)
    books.add(_entries(record.value or b"" for record in read_records(directory, topic)))
    accounts = _of(books, identity)
    doubtful = [account for account in accounts if account.in_doubt]  # reading the whole log takes long
    tails = _ends_in_log(directory, _places(doubtful))
    return [account.answer(tails if account in doubtful else None) for account in accounts]


async def answers_of_kafka(settings: config.KafkaSink, topic: str, stream: str, identity: str) -> list[Answer]:
    """From Kafka. SinkUnavailable if Kafka does not answer or the ledger's topic does not exist."""
    from logreceiver.sinks.kafka import KafkaSink

    sink, books = KafkaSink(settings), Books(stream)
    try:
        await sink.start()
        async for value in sink.read_all(topic):
            books.add(_entries([value]))
        accounts = _of(books, identity)
        places = _places(accounts)
        states = await asyncio.gather(*(_ask(sink, place) for place in places))
        tails = dict(zip(places, states, strict=True))
    finally:
        await sink.close()
    return [account.answer(tails) for account in accounts]


def _entries(values: Iterable[bytes]) -> Iterator[Entry]:
    return (entry for value in values if (entry := decode(value)) is not None)


def _of(books: Books, identity: str) -> list[Account]:
    return [account for account in books.accounts() if fnmatchcase(account.identity, identity)]


def _places(accounts: list[Account]) -> list[Place]:
    return list(dict.fromkeys(key[:3] for account in accounts for key in account.runs))


async def _ask(sink: Sink, place: Place) -> RunState | None:
    try:
        return await sink.ask(*place)
    except SinkUnavailable:
        return None


def _ends_in_log(directory: Path, places: list[Place]) -> dict[Place, RunState | None]:
    """What the log's partitions know about producers, found by reading them."""
    from logreceiver.sinks.log_read import readers
    from logreceiver.sinks.producers import Producers

    ends: dict[Place, RunState | None] = dict.fromkeys(places)
    for topic, partition in dict.fromkeys(place[:2] for place in places):
        known = Producers()
        try:
            for batch in readers(directory, topic, partition=partition)[0].poll():
                known.record(batch.header, batch.header.base_offset)
        except FileNotFoundError:
            continue
        ends.update({place: known.state(place[2]) for place in places if place[:2] == (topic, partition)})
    return ends


# -- printing --------------------------------------------------------------------------------------------------


def show(answers: list[Answer], *, as_json_lines: bool) -> None:
    """Print to stdout: for people, or as one JSON document."""
    if as_json_lines:
        click.echo(json.dumps(as_json(answers), indent=2))
        return
    for answer in answers:
        _show_one(answer, several=sum(other.stream == answer.stream for other in answers) > 1)


def _show_one(answer: Answer, *, several: bool) -> None:
    twin = f", twin of {answer.twin_of}" if answer.twin_of else ""
    forwarder = f", forwarder {answer.forwarder_id}" if several else ""
    click.echo(
        f"{answer.stream}: sent {_number(answer.sent)}, stored {_number(answer.stored)}, "
        f"missing {_number(answer.missing)}, twice {_number(answer.twice)}"
    )
    click.echo(f"  from {answer.identity}{forwarder}{twin}, {_time(answer.first_ms)} to {_time(answer.last_ms)}")
    reported = "never" if answer.reported_ms is None else _time(answer.reported_ms)
    rows = [
        ("waiting", answer.waiting),
        ("dropped", answer.dropped),
        ("dead-lettered", answer.dead_lettered),
        ("resets", answer.resets),
        ("stored but not in the ledger", answer.not_in_ledger),
    ]
    click.echo(f"  {', '.join(f'{name} {_number(value)}' for name, value in rows)}; last report: {reported}")
    table = [("mode", "group", "TLS", "batches", "records", "", "bytes", "")]
    table += [
        (
            share.mode,
            share.group,
            share.tls_version,
            _number(share.batches),
            _number(share.records),
            f"{share.records_percent:.2f} %",
            _number(share.bytes),
            f"{share.bytes_percent:.2f} %",
        )
        for share in answer.shares
    ]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        words = [
            cell.ljust(width) if at < 3 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        click.echo(f"    {'  '.join(words)}".rstrip())
    for note in answer.notes:
        click.echo(f"  note: {note}")


def _number(value: int | None) -> str:
    return "unknown" if value is None else str(value)


def _time(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"
