"""A forwarder whose wall clock can be set while it runs: `python -m bench.chaos.steppedclock FILE run -c logfwd.toml`.

In everything else it is `logfwd`. FILE holds the number of seconds that its clock is ahead; every reading of the clock
reads it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path


class SteppedClock:
    """The file, and the first words of a command that runs on its clock."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.argv: Sequence[str] = (sys.executable, "-m", __spec__.name, str(path))
        self.set(0.0)

    def set(self, ahead_seconds: float) -> None:
        """Step the clock; a reader sees the old value or the new one."""
        new = self._path.with_suffix(".new")
        new.write_text(f"{ahead_seconds:.3f}")
        os.replace(new, self._path)


def _go_by(path: Path) -> None:
    true_time_ns = time.time_ns

    def time_ns() -> int:
        return true_time_ns() + int(float(path.read_text()) * 1e9)

    time.time_ns = time_ns
    time.time = lambda: time_ns() / 1e9


if __name__ == "__main__":
    _go_by(Path(sys.argv.pop(1)))
    from logfwd.cli import main

    main()
