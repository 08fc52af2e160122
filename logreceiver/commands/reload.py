"""`logreceiver reload`: has a running receiver take its configuration, and says what came of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from logreceiver.commands.options import CONFIG
from streams import control, program
from streams.config import toml
from streams.errors import ConfigError
from streams.telemetry.client import NotAnswered

EX_REFUSED = 1
EX_PARTLY = 3


@click.command()
@CONFIG
@click.option("--check", is_flag=True, help="Only say what would be done.")
@click.option("--confirm", metavar="DIGEST", default="", help="Do it although it ends many links; a refusal names it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def reload(path: Path, check: bool, confirm: str, as_json: bool) -> None:
    """Have the running receiver take its configuration.

    It reads the file again, and all files that it names, and takes them whole or not at all; so do several workers
    together. Then it ends the links that the new rules do not allow: docs/rights.md. Prints what was taken, and what
    waits for a restart. The receiver must have a control_socket; SIGHUP does the same without an answer.

    Exit codes: 0 if it was taken, or with --check would be; 1 if it would end too many links, or the moment was bad; 3
    if some workers did not say that they took it; 69 if no receiver answers; 78 if the configuration cannot be used.
    """
    try:
        answer = control.ask(_socket(path), "reload", check=check, confirm=confirm)
    except NotAnswered as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(program.EX_UNAVAILABLE)
    if as_json:
        click.echo(json.dumps(answer))
    else:
        _print(answer)
    if answer["outcome"] == "partly":
        sys.exit(EX_PARTLY)
    if answer["outcome"] == "refused":
        sys.exit(program.EX_CONFIG if answer["problems"] else EX_REFUSED)


def _socket(path: Path) -> Path:
    """Where the receiver listens; nothing else of the file matters here, as the receiver checks it."""
    try:
        table = toml.parse(path)
    except ConfigError as error:
        program.refuse_config(error)
    name = table.get("control_socket")
    if not isinstance(name, str) or not name:
        raise click.UsageError(f"{path} has no control_socket; set one and restart the receiver, or send it SIGHUP")
    return path.absolute().parent / name


def _print(answer: dict[str, Any]) -> None:
    if answer["outcome"] == "refused":
        _print_refusal(answer)
        return
    done = answer["outcome"] != "checked"
    click.echo(f"{'taken' if done else 'would be taken'}: {', '.join(answer['taken']) or 'no key has changed'}")
    if answer["waits"]:
        click.echo(f"waits for a restart: {', '.join(answer['waits'])}")
    click.echo(f"links: {answer['links']}, of which {answer['ends']} {'end' if done else 'would end'}")
    click.echo(f"configuration: {answer['digest']}")
    _print_workers(answer)
    if answer["outcome"] == "partly":
        click.echo(f"not all workers have answered: {answer['remedy']}", err=True)


def _print_refusal(answer: dict[str, Any]) -> None:
    what = answer["reason"] + (f": {answer['ends']} of {answer['links']}" if answer["ends"] > 1 else "")
    for problem in answer["problems"] or [what]:
        click.echo(problem, err=True)
    _print_workers(answer)
    click.echo(f"refused, and nothing was changed: {answer['remedy']}", err=True)


def _print_workers(answer: dict[str, Any]) -> None:
    """What each of several workers says."""
    for row in answer.get("workers", ()):
        words = {"checked": "could take it", "dropped": "keeps what it has"}.get(row["outcome"], row["outcome"])
        said = f"{words}: {row['reason']}" if row["reason"] else words
        click.echo(f"worker {row['worker']}: {said}; it uses {row['in_use'] or 'an unknown configuration'}")
