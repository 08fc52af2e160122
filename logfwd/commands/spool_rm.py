"""`logfwd spool rm`: delete what a removed stream left in the state directory."""

from __future__ import annotations

import asyncio

import click

from logfwd.commands.spools import file_of, spool_command, without_forwarder
from logfwd.config import ForwarderConfig
from logfwd.spool.remains import Remains, in_file, remove_file, remove_twin
from streams import program
from streams.telemetry import logs


@click.command(short_help="Delete the spool of a removed stream.")
@spool_command
@click.argument("stream")
@click.option("--force", is_flag=True, help="Discard waiting batches and dead letters.")
def rm(config: ForwarderConfig, stream: str, force: bool) -> None:
    """Delete the spool of STREAM, which must have been removed from the configuration.

    Deletes an original stream's file with everything in it, its twins' batches and its file positions too; of a twin
    only its own batches. Stop the forwarder first. If batches or dead letters wait, they are counted and nothing is
    deleted, unless --force is given. Damaged files that were set aside stay.
    """
    if any(found.name == stream for found in config.streams):
        raise click.ClickException(
            f"stream {stream} is configured; remove its file from {config.streams_dir} first, or its spool is in use"
        )
    with without_forwarder(config, "remove the spool"):
        path = file_of(config, stream)
        parts = in_file(path)
        own = next((part for part in parts if part.stream == stream), Remains(stream, path))
        gone = parts if own.is_original else [own]
        lost = [part for part in gone if part.batches or part.dead_letters]
        if lost and not force:
            counts = "; ".join(map(str, lost))
            raise click.ClickException(
                f"{path} holds what was not stored yet: {counts}. Export it with logfwd spool export STREAM, then "
                f"repeat this with --force, which discards it"
            )
        _remove(own)
    for part in lost:
        program.say(f"discarded {part}")


def _remove(part: Remains) -> None:
    if not part.is_original:
        logs.configure(level="warning")
        asyncio.run(remove_twin(part.file, part.stream))
        program.say(f"removed {part.stream} from {part.file}")
        return
    freed, kept = remove_file(part.file)
    program.say(f"removed {part.file}, which frees {freed} bytes")
    for file in kept:
        program.say(f"kept {file}, a damaged spool that was set aside")
