"""What commands share that ask a running program to take its configuration, and print its answer."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from streams import control, program
from streams.config import toml
from streams.errors import ConfigError
from streams.telemetry.client import NotAnswered

EX_REFUSED = 1

Answer = dict[str, Any]


def path_in(path: Path, key: str, *, missing: str) -> Path:
    """The path that a configuration file names by this key; UsageError, saying what is `missing`, without one.

    Nothing else of the file matters here, as the program that is asked checks it.
    """
    try:
        name = toml.parse(path).get(key)
    except ConfigError as error:
        program.refuse_config(error)
    if not isinstance(name, str) or not name:
        raise click.UsageError(f"{path} has no {key}{missing}")
    return path.absolute().parent / name


def reload(
    socket: Path, show: Callable[[Answer], None], *, as_json: bool, seconds: float = control.ANSWER_SECONDS, **how: Any
) -> Answer:
    """Print the answer, by `show` unless `as_json`; ends with 69 if there is none, and with 1 or 78 if it is a refusal.

    `how`: the arguments of the act "reload".
    """
    try:
        answer = control.ask(socket, "reload", seconds=seconds, **how)
    except NotAnswered as error:
        program.end_unavailable(error)
    if as_json:
        click.echo(json.dumps(answer))
    else:
        show(answer)
    if answer["outcome"] == "refused":
        sys.exit(program.EX_CONFIG if answer["problems"] else EX_REFUSED)
    return answer
