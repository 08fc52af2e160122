"""Options that several commands of `logreceiver` share, and what they lead to."""

from __future__ import annotations

from pathlib import Path

import click

from logreceiver.config import ReceiverConfig, load_receiver
from streams import program
from streams.errors import ConfigError

CONFIG = click.option(
    "-c",
    "--config",
    "path",
    type=click.Path(path_type=Path),
    default=Path("logreceiver.toml"),
    show_default=True,
    help="The receiver's configuration file.",
)

DIRECTORY = click.option(
    "-d",
    "--directory",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Directory of the embedded log; without it, the configured one.",
)


def load(path: Path) -> ReceiverConfig:
    """The configuration; if it is faulty, print every problem and exit with 78."""
    try:
        return load_receiver(path)
    except ConfigError as error:
        program.refuse_config(error)


def log_directory(path: Path, directory: Path | None) -> Path:
    """The embedded log to read: the one given, or the configured one."""
    if directory is not None:
        return directory
    sink = load(path).sink
    if sink.log_directory is None:
        raise click.UsageError(
            f"the configured sink is {sink.location}; read it with its own tools, or use --directory"
        )
    return sink.log_directory
