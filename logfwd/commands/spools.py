"""What the commands of `logfwd spool` have in common: their errors, and which file holds a stream."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import click

from logfwd import state_dir
from logfwd.commands.options import CONFIG
from logfwd.config import ForwarderConfig, load_forwarder
from logfwd.spool.file import reader
from streams import program
from streams.errors import ConfigError, SpoolError


def spool_command(command: Callable[..., None]) -> Callable[..., None]:
    """Load the configuration that -c names, and report errors as one clear line."""

    @CONFIG
    @wraps(command)
    def run(path: Path, *args: Any, **options: Any) -> None:
        try:
            command(load_forwarder(path, opens_files=False), *args, **options)
        except ConfigError as error:
            program.refuse_config(error)
        except (SpoolError, sqlite3.Error, OSError) as error:
            raise click.ClickException(str(error)) from error

    return run


@contextlib.contextmanager
def without_forwarder(config: ForwarderConfig, act: str) -> Iterator[None]:
    """Own the state directory for the length of the block; an error if a forwarder does. `act`: what is to be done."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(state_dir.lock(config.state_dir))
        except ConfigError as error:
            raise click.ClickException(f"{error}; stop the forwarder, {act}, and start it again") from error
        yield


def spools_of(config: ForwarderConfig) -> list[Path]:
    return sorted(config.state_dir.glob("*.spool"))


@contextlib.contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A consistent snapshot of a spool, however long it takes to read."""
    with contextlib.closing(reader(path)) as connection:
        connection.execute("BEGIN")
        yield connection


def file_of(config: ForwarderConfig, stream: str) -> Path:
    """The file that holds a stream's batches."""
    originals = {found.name: found.mirror_of or found.name for found in config.streams}
    path = config.state_dir / f"{originals.get(stream, stream)}.spool"
    if path.is_file():
        return path
    known: set[str] = set()
    for other in spools_of(config):
        with reading(other) as connection:
            streams = streams_in(other, connection)
        if stream in streams:
            return other
        known.update(streams)
    names = ", ".join(sorted(known)) or "none"
    raise click.ClickException(f"stream {stream!r} has no spool in {config.state_dir}; there are spools for: {names}")


def streams_in(path: Path, connection: sqlite3.Connection) -> list[str]:
    """All streams of a file, the original first."""
    found = connection.execute(
        "SELECT stream FROM totals UNION SELECT stream FROM batches UNION SELECT stream FROM runs"
    )
    return sorted({path.stem, *(stream for (stream,) in found)}, key=lambda name: (name != path.stem, name))
