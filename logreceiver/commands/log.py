"""`logreceiver cat` and `logreceiver replay`: the embedded log's records to stdout, or to Kafka."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from logreceiver.commands.options import CONFIG, DIRECTORY, log_directory
from streams import program
from streams.records.printed import printed
from streams.telemetry import logs


@click.command()
@click.argument("topic")
@CONFIG
@DIRECTORY
@click.option("--partition", type=int, help="Print this partition only; without it, all of them.")
@click.option("--from-offset", type=int, default=0, show_default=True, help="First offset to print, in each partition.")
@click.option("-f", "--follow", is_flag=True, help="Keep printing records as they arrive, until interrupted.")
def cat(topic: str, path: Path, directory: Path | None, partition: int | None, from_offset: int, follow: bool) -> None:
    """Print the records of TOPIC in the embedded log, one per line.

    A record that is not a JSON object is printed as {"record_base64": "…"}.

    Partitions are printed one after the other. A receiver may be writing to the log at the same time: only
    acknowledged records are printed. Damaged batches are skipped, with a warning on stderr.
    """
    from logreceiver.sinks.log.read import read_records

    logs.configure(level="warning")
    out = sys.stdout.buffer
    where = log_directory(path, directory)
    try:
        for record in read_records(where, topic, partition=partition, from_offset=from_offset, follow=follow):
            out.write(printed(record.value or b"") + b"\n")
            if follow:
                out.flush()
        out.flush()
    except FileNotFoundError as error:
        raise click.ClickException(f"no topic {topic!r} here: {error}") from error
    except (KeyboardInterrupt, BrokenPipeError):
        sys.stderr.close()


@click.command()
@click.argument("topic")
@click.option(
    "--to",
    "target",
    required=True,
    help="kafka://HOST:PORT[,HOST:PORT…][/TOPIC]: brokers (plaintext, without SASL) and target topic, default TOPIC.",
)
@CONFIG
@DIRECTORY
def replay(topic: str, target: str, path: Path, directory: Path | None) -> None:
    """Copy TOPIC from the embedded log to Kafka, each record once.

    The batches get producer ids of that cluster. Copies everything acknowledged so far; a second replay copies it
    again. The target topic is created if it does not exist. If a batch cannot be stored within 120 s, the replay stops,
    prints the offset where it stopped, and exits with 69.
    """
    from logreceiver.replay import replay_to_url

    logs.configure(level="warning")
    where = log_directory(path, directory)

    async def copy() -> None:
        result = await replay_to_url(where, topic, target)
        click.echo(f"{result.records} records in {result.batches} batches replayed to {result.topic}")

    program.run(copy)
