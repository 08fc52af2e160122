"""`logfwd spool set-aside`: make the batch that holds up a stream a dead letter."""

from __future__ import annotations

import asyncio

import click

from logfwd.commands.spools import file_of, spool_command, without_forwarder
from logfwd.config import ForwarderConfig
from streams import program


@click.command("set-aside", short_help="Move the batch that holds up a stream to the dead letters.")
@spool_command
@click.argument("stream")
def set_aside(config: ForwarderConfig, stream: str) -> None:
    """Move the batch that STREAM would send first to the dead letters, so that it goes on with the next.

    Is for a batch that the sink refuses again and again though nothing else is wrong: the forwarder logs `batch stuck`.
    It does this by itself only where the sink stores batches of others meanwhile; otherwise nobody but you can tell
    whether it is the batch or the broker. Stop the forwarder first. `logfwd spool show STREAM` prints the batch,
    `export --dead-letters` writes it out, `requeue` sends it again.
    """
    from logfwd.spool.requeue import set_aside as set_first_aside
    from streams.telemetry import logs

    path = file_of(config, stream)
    with without_forwarder(config, "set the batch aside"):
        logs.configure(level="warning")
        row = asyncio.run(set_first_aside(path, stream, "set aside by hand"))
    if row is None:
        raise click.ClickException(f"stream {stream} has no waiting batch")
    program.say(f"set aside batch {row.id} with {row.record_count} records")
