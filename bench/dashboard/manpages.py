"""Writes a man page for every command of the three programs: `make man`, into build/man/man1.

click-man makes the pages. It knows neither commands that are imported only when they are called nor what stands below
the options of `--help` (examples), so both are put where it looks.
"""

from __future__ import annotations

import sys
from inspect import cleandoc
from pathlib import Path

import click
from click_man.core import write_man_pages

from bench.cli import main as logbench
from logfwd.cli import main as logfwd
from logreceiver.cli import main as logreceiver

PROGRAMS: dict[str, click.Command] = {"logfwd": logfwd, "logreceiver": logreceiver, "logbench": logbench}
NOT_REWRAPPED = "\b"
"""Click's mark of a paragraph that keeps its lines."""


def write(directory: Path, version: str) -> list[Path]:
    """The pages, NAME-COMMAND.1 for each command; a directory that is not there is made."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, program in PROGRAMS.items():
        write_man_pages(name, _whole(program, name), version=version, target_dir=str(directory))
    return sorted(directory.glob("*.1"))


def _whole(command: click.Command, name: str) -> click.Command:
    """A copy with all subcommands in it, and with its examples as the end of its description."""
    whole: click.Command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=name)
        found = {each: command.get_command(context, each) for each in command.list_commands(context)}
        commands = {each: _whole(sub, each) for each, sub in found.items() if sub is not None}
        whole = click.Group(name, commands=commands, params=command.params)
    else:
        whole = click.Command(name, params=command.params, hidden=command.hidden)
    texts = [cleandoc(text.replace(NOT_REWRAPPED, "")) for text in (command.help, command.epilog) if text]
    whole.help, whole.short_help = "\n\n".join(texts), command.get_short_help_str(80)
    return whole


if __name__ == "__main__":
    from importlib.metadata import version

    for page in write(Path(sys.argv[1]), version("logfwd")):
        print(page)
