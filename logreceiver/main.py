"""Entry point of `logreceiver`: does what cannot wait for imports, then imports the command line and runs it."""

from __future__ import annotations

import sys

from streams import startup


def main() -> None:
    """Run the command line."""
    startup.prepare()
    if sys.argv[1:2] == ["run"]:
        from logreceiver import early
        from streams import handed

        handed.inherit()
        early.listen(sys.argv[2:])
    from logreceiver.cli import main as commands

    commands()
