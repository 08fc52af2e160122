"""Where `logreceiver` begins: what cannot wait until its command line is imported, and that."""

from __future__ import annotations

from streams import startup


def main() -> None:
    """Run the command line."""
    startup.prepare()
    from logreceiver.cli import main as commands

    commands()
