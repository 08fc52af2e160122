"""Our programs without their metrics: `python -m bench.lab.unobserved logfwd run -c logfwd.toml`.

In everything else they are the same: every call that observes something is still made, on a family that does nothing.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from streams.telemetry.metrics import Metrics
from streams.telemetry.window import RECENT_SECONDS, Percentiles, Recent, Summary

LAUNCHER = (sys.executable, "-m", "bench.lab.unobserved")
"""The first words of such a command line; the command itself follows."""
MAKERS = ("_windowed", "_histogram", "_counter", "_gauge")
"""The methods of `Metrics` through which both programs make every family."""


class Nothing:
    """Stands in for a counter, gauge or histogram, and for its children."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def labels(self, *_: object) -> Nothing:
        return self

    def _ignore(self, *_: object) -> None: ...

    inc = dec = set = observe = forget = clear = remove_by_labels = _ignore

    def summary(self, _: str) -> Summary:
        none = Percentiles(median=None, p95=None, p99=None)
        return Summary(count=0, **none, recent=Recent(seconds=RECENT_SECONDS, count=0, **none))

    def since(self, *_: object) -> None:
        """No values."""

    def collect(self) -> list[Any]:
        return []


def observe_nothing() -> None:
    """From now on every family that a program makes does nothing."""
    for maker in MAKERS:
        assert callable(getattr(Metrics, maker)), f"nothing makes families by {maker} any more"
        setattr(Metrics, maker, Nothing)


if __name__ == "__main__":
    observe_nothing()
    sys.argv.pop(0)
    importlib.import_module(f"{Path(sys.argv[0]).name}.cli").main()
