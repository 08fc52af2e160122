"""`logreceiver reload`: has a running receiver take its configuration, and says what came of it."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from logreceiver.commands.options import CONFIG, socket_of
from streams import asking, program

EX_PARTLY = 3


@click.command()
@CONFIG
@click.option("--check", is_flag=True, help="Only say what would be done.")
@click.option("--confirm", metavar="DIGEST", default="", help="Do it although it ends links; a refusal names it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def reload(path: Path, check: bool, confirm: str, as_json: bool) -> None:
    """Have the running receiver take its configuration.

    It reads the file again, and all files that it names, and takes them whole or not at all; so do several workers
    together. Then it ends the links that the new rules do not allow: docs/rights.md. Prints what was taken, what waits
    for a restart, and whose links end. The receiver must have a control_socket; SIGHUP does the same without an answer.

    Exit codes: 0 if it was taken, or with --check would be; 1 if it has to be confirmed, or the moment was bad; 3 if
    some workers did not say that they took it; 69 if no receiver answers; 78 if the configuration cannot be used.
    """
    answer = asking.reload(
        socket_of(path, or_else=", or send it SIGHUP"), _print, as_json=as_json, check=check, confirm=confirm
    )
    if answer["outcome"] == "partly":
        sys.exit(EX_PARTLY)


def _print(answer: asking.Answer) -> None:
    if answer["outcome"] == "refused":
        _print_refusal(answer)
        return
    done = answer["outcome"] != "checked"
    program.say(f"{'taken' if done else 'would be taken'}: {', '.join(answer['taken']) or 'no key has changed'}")
    if answer["waits"]:
        program.say(f"waits for a restart: {', '.join(answer['waits'])}")
    program.say(f"links: {answer['links']}, of which {answer['ends']} {'end' if done else 'would end'}")
    for row in answer["ending"]:
        program.say(f"  {row}")
    program.say(f"configuration: {answer['digest']}")
    _print_workers(answer)
    if answer["outcome"] == "partly":
        program.say(f"not all workers have answered: {answer['remedy']}", err=True)


def _print_refusal(answer: asking.Answer) -> None:
    what = answer["reason"] + (f": {answer['ends']} of {answer['links']}" if answer["ends"] > 1 else "")
    for problem in answer["problems"] or [what]:
        program.say(problem, err=True)
    for row in answer["ending"]:
        program.say(f"  {row}", err=True)
    _print_workers(answer)
    program.say(f"refused, and nothing was changed: {answer['remedy']}", err=True)


def _print_workers(answer: asking.Answer) -> None:
    """What each of several workers says."""
    for row in answer.get("workers", ()):
        words = {"checked": "could take it", "dropped": "keeps what it has"}.get(row["outcome"], row["outcome"])
        said = f"{words}: {row['reason']}" if row["reason"] else words
        program.say(f"worker {row['worker']}: {said}; it uses {row['in_use'] or 'an unknown configuration'}")
