"""What commands share that ask a running program to take its configuration, and print its answer."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from streams import control, program
from streams.config import toml
from streams.errors import ConfigError
from streams.telemetry.client import NotAnswered

EX_REFUSED = 1
EX_UNWELL = 1
STATUS_SECONDS = 10.0
RATE_SECONDS = 1.0
"""Over how long rates are measured."""

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


def ask(socket: Path, act: str, *, seconds: float, **how: Any) -> Answer:
    """What the program answers; ends with 69 if it does not."""
    try:
        return control.ask(socket, act, seconds=seconds, **how)
    except NotAnswered as error:
        program.end_unavailable(error)


def status(socket: Path, records: Callable[[Answer], int], as_one: Callable[[Answer], Answer] = dict) -> Answer:
    """How a program's streams do, with the rate of `records` in each row: asked twice, a moment apart.

    `as_one` makes one answer of what workers say.
    """
    first = as_one(ask(socket, "status", seconds=STATUS_SECONDS))
    time.sleep(RATE_SECONDS)
    answer = as_one(ask(socket, "status", seconds=STATUS_SECONDS))
    seconds = max(answer["now"] - first["now"], 0.001)
    before = {row["stream"]: records(row) for row in first["streams"]}
    for row in answer["streams"]:
        grown = records(row) - before.get(row["stream"], records(row))
        row["records_per_second"] = round(max(grown, 0) / seconds, 1)
    return answer


def print_json(answer: object) -> None:
    """For a machine."""
    click.echo(json.dumps(answer, indent=2))


def print_trouble(trouble: Mapping[str, str]) -> None:
    """What is wrong, by part."""
    for part, reason in trouble.items():
        program.say(f"{part}: {reason}")


def reload(
    socket: Path, show: Callable[[Answer], None], *, as_json: bool, seconds: float = control.ANSWER_SECONDS, **how: Any
) -> Answer:
    """Print the answer, by `show` unless `as_json`; ends with 69 if there is none, and with 1 or 78 if it is a refusal.

    `how`: the arguments of the act "reload".
    """
    answer = ask(socket, "reload", seconds=seconds, **how)
    if as_json:
        click.echo(json.dumps(answer))
    else:
        show(answer)
    if answer["outcome"] == "refused":
        sys.exit(program.EX_CONFIG if answer["problems"] else EX_REFUSED)
    return answer
