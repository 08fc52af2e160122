"""What --help shows: a reader of a list of commands sees whole sentences, and finds a sentence for every option."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

import bench.cli
import logfwd.cli
import logreceiver.cli

TERMINAL = 78
"""What click uses of a terminal of 80."""
PROGRAMS = {"logfwd": logfwd.cli.main, "logreceiver": logreceiver.cli.main, "logbench": bench.cli.main}


def commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    """A command and all that are below it, each with the words that call it."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from commands(found, f"{path} {name}")


ALL = [each for name, main in PROGRAMS.items() for each in commands(main, name)]


@pytest.mark.parametrize(("path", "command"), ALL, ids=[path for path, _ in ALL])
def test_every_list_of_commands_shows_whole_sentences(path: str, command: click.Command) -> None:
    context = click.Context(command, info_name=path, terminal_width=TERMINAL)
    listed = command.get_help(context).partition("\nCommands:\n")[2].splitlines()
    assert [line for line in listed if line.endswith("...")] == []


@pytest.mark.parametrize(("path", "command"), ALL, ids=[path for path, _ in ALL])
def test_every_command_and_every_option_says_what_it_does(path: str, command: click.Command) -> None:
    assert command.help, path
    silent = [each.name for each in command.params if isinstance(each, click.Option) and not each.help]
    assert silent == []
