"""The command `completion` of both programs: what makes a shell complete their commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from streams import program

SHELLS = ("bash", "zsh", "fish")


def make(name: str) -> click.Command:
    """The command for a program of this name."""

    @click.command(
        name="completion",
        short_help="Print a completion script for a shell.",
        epilog=f"""\b
Examples:
  eval "$({name} completion bash)"                            in ~/.bashrc
  eval "$({name} completion zsh)"                             in ~/.zshrc
  {name} completion fish > ~/.config/fish/completions/{name}.fish""",
    )
    @click.argument("shell", type=click.Choice(SHELLS))
    @click.pass_context
    def completion(context: click.Context, shell: str) -> None:
        """Print what makes SHELL complete this program's commands and options.

        The shell then asks the program itself, so that what is completed is that of the version in use.

        Exit codes: 0.
        """
        kind = get_completion_class(shell)
        assert kind is not None, "click knows all of SHELLS"
        root = context.find_root().command
        script = kind(root, {}, name, f"_{name.upper()}_COMPLETE")
        for line in (script.source_template % script.source_vars()).splitlines():
            program.say(line)

    return completion
