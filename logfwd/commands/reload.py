"""`logfwd reload`: has the running forwarder take its configuration, and says what came of it."""

from __future__ import annotations

from pathlib import Path

import click

from logfwd.commands.options import CONFIG, socket_of
from streams import asking, program

ANSWER_SECONDS = 3700.0
"""Streams that are changed are drained first, for at most stop_grace."""


@click.command()
@CONFIG
@click.option("--check", is_flag=True, help="Only say what would be done.")
@click.option("--confirm", metavar="DIGEST", default="", help="Do it although streams are missing; a refusal names it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def reload(path: Path, check: bool, confirm: str, as_json: bool) -> None:
    """Have the running forwarder take its configuration.

    It reads logfwd.toml, every stream's file and the files that these name, and takes them or refuses them; then it
    says what was taken, which streams were started, changed or removed, and what waits for a restart. Streams that are
    missing are removed only if their files say `removed = true`, or with --confirm. SIGHUP does the same without an
    answer. It is asked over state_dir/control.sock, as its own user.

    Exit codes: 0 if it was taken, or with --check would be; 1 if streams are missing; 69 if no forwarder answers; 78
    if the configuration cannot be used.
    """
    asking.reload(socket_of(path), show, as_json=as_json, seconds=ANSWER_SECONDS, check=check, confirm=confirm)


def show(answer: asking.Answer) -> None:
    """Print it for a person."""
    if answer["outcome"] == "refused":
        for problem in answer["problems"] or [answer["reason"]]:
            program.say(problem, err=True)
        program.say(f"refused, and nothing was changed: {answer['remedy']}", err=True)
        return
    done = answer["outcome"] == "taken"
    program.say(f"{'taken' if done else 'would be taken'}: {', '.join(answer['taken']) or 'no key of logfwd.toml'}")
    if answer["renewed"]:
        program.say(f"{'renewed' if done else 'to be renewed'}: the certificates of {', '.join(answer['renewed'])}")
    for what in ("started", "changed", "relinked", "removed"):
        if answer[what]:
            program.say(f"streams {'' if done else 'to be '}{what}: {', '.join(answer[what])}")
    if answer["waits"]:
        program.say(f"waits for a restart: {', '.join(answer['waits'])}")
    program.say(f"configuration: {answer['digest']}")
