"""Options that several commands of `logfwd` share."""

from __future__ import annotations

from pathlib import Path

import click

from streams import asking, control

CONFIG = click.option(
    "-c",
    "--config",
    "path",
    type=click.Path(path_type=Path),
    default=Path("logfwd.toml"),
    show_default=True,
    help="The forwarder's configuration file; every NAME.toml in its streams_dir is a stream.",
)


def socket_of(path: Path) -> Path:
    """Where the forwarder of this configuration takes acts."""
    return control.in_directory(asking.path_in(path, "state_dir", missing=", where the forwarder's socket is"))
