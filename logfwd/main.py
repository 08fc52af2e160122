"""Entry point of `logfwd`: does what cannot wait for imports, then imports the command line and runs it."""

from __future__ import annotations

from streams import startup


def main() -> None:
    """Run the command line."""
    startup.prepare()
    from logfwd.cli import main as commands

    commands()
