"""Options that several commands of `logreceiver` share, and what they lead to."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

import click

from logreceiver.config import ReceiverConfig, load_receiver
from streams import asking, program
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

SKIP_DAMAGED = click.option(
    "--skip-damaged",
    is_flag=True,
    help="Go on behind damage, which is named on stderr; without it, the command stops there.",
)
EX_DAMAGED = program.EX_DATAERR


def stopped_at_damage(error: Exception) -> NoReturn:
    """Say where, and exit with 65."""
    program.say(f"stopped at damage: {error}", err=True)
    program.say("Use --skip-damaged to go on behind it.", err=True)
    sys.exit(EX_DAMAGED)


def end_with_damage(found: int) -> None:
    """Exit with 65 if damage was passed over."""
    if found:
        program.say(f"damage skipped in {found} places: what is named above was left out", err=True)
        sys.exit(EX_DAMAGED)


def load(path: Path) -> ReceiverConfig:
    """The configuration; if it is faulty, print every problem and exit with 78."""
    try:
        return load_receiver(path)
    except ConfigError as error:
        program.refuse_config(error)


def socket_of(path: Path, *, or_else: str = "") -> Path:
    """Where the receiver of this configuration takes acts."""
    return asking.path_in(path, "control_socket", missing=f"; set one and restart the receiver{or_else}")


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
