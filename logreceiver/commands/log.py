"""`logreceiver cat` and `logreceiver replay`: the embedded log's records to stdout, or to Kafka."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from logreceiver.commands.options import (
    CONFIG,
    DIRECTORY,
    SKIP_DAMAGED,
    end_with_damage,
    log_directory,
    stopped_at_damage,
)
from streams import program
from streams.records.printed import for_terminal, printed
from streams.telemetry import logs


@click.command()
@click.argument("topic")
@CONFIG
@DIRECTORY
@click.option("--partition", type=int, help="Print this partition only; without it, all of them.")
@click.option("--from-offset", type=int, default=0, show_default=True, help="First offset to print, in each partition.")
@click.option("-f", "--follow", is_flag=True, help="Keep printing records as they arrive, until interrupted.")
@SKIP_DAMAGED
def cat(
    topic: str,
    path: Path,
    directory: Path | None,
    partition: int | None,
    from_offset: int,
    follow: bool,
    skip_damaged: bool,
) -> None:
    """Print the records of TOPIC in the embedded log, one per line.

    A record that is not a JSON object is printed as {"record_base64": "…"}. Characters that a terminal would obey are
    printed as escapes of JSON if stdout is one.

    Partitions are printed one after the other. A receiver may be writing to the log at the same time: only
    acknowledged records are printed. Whatever else there is to say goes to stderr: damage, and where a log begins whose
    old records were deleted.

    Exit codes: 0 if every record was printed; 65 if some are damaged, also if they were skipped; 1 if there is no such
    topic; 78 for an invalid configuration.
    """
    from logreceiver.sinks.log.damage import LogDamaged, Skip, stop
    from logreceiver.sinks.log.read import read_records

    logs.configure(level="warning")
    out, to_terminal = sys.stdout.buffer, sys.stdout.isatty()
    where, skip = log_directory(path, directory), Skip()
    on_damage = skip if skip_damaged else stop
    try:
        for record in read_records(
            where, topic, partition=partition, from_offset=from_offset, follow=follow, on_damage=on_damage
        ):
            line = printed(record.value or b"")
            out.write((for_terminal(line) if to_terminal else line) + b"\n")
            if follow:
                out.flush()
        out.flush()
    except FileNotFoundError as error:
        raise click.ClickException(f"no topic {topic!r} here: {error}") from error
    except LogDamaged as error:
        out.flush()
        stopped_at_damage(error)
    except (KeyboardInterrupt, BrokenPipeError):
        sys.stderr.close()
        return
    end_with_damage(skip.count)


@click.command()
@click.argument("topic")
@click.option(
    "--to",
    "target",
    required=True,
    help="kafka://HOST:PORT[,HOST:PORT…][/TOPIC]: brokers (plaintext, without SASL) and target topic, default TOPIC. "
    "Or FILE.toml, such as the logreceiver.toml of a receiver in front of that cluster: its [sink] says how to get "
    "there (brokers, security, tls, sasl), and how a missing TOPIC is created (create_topics, partition_count, "
    "replication_factor).",
)
@CONFIG
@DIRECTORY
@SKIP_DAMAGED
@click.option("--again", is_flag=True, help="Copy from the beginning, whatever was copied to this target before.")
def replay(topic: str, target: str, path: Path, directory: Path | None, skip_damaged: bool, again: bool) -> None:
    """Copy TOPIC from the embedded log to Kafka, each record once.

    The batches get producer ids of that cluster. Copies everything acknowledged so far. A replay that was interrupted,
    or has ended, goes on where it was when it is begun again with the same target: its place is kept in the log's
    directory, under replays. With kafka://, a missing target topic is created, with one replica. If a batch cannot be
    stored within 120 s, the replay stops and prints the offset where it stopped.

    Exit codes: 0 if every record was copied; 65 at damage, also if it was skipped; 69 if the replay had to stop; 78 for
    an invalid configuration, target or topic.
    """
    from logreceiver.replay import replay_to
    from logreceiver.sinks.log.damage import LogDamaged, Skip, stop

    logs.configure(level="warning")
    where, skip = log_directory(path, directory), Skip()
    damaged: list[LogDamaged] = []

    async def copy() -> None:
        try:
            result = await replay_to(where, topic, target, on_damage=skip if skip_damaged else stop, again=again)
        except LogDamaged as error:
            damaged.append(error)
            return
        program.say(f"{result.records} records in {result.batches} batches replayed to {result.topic}")

    program.run(copy)
    if damaged:
        stopped_at_damage(damaged[0])
    end_with_damage(skip.count)
