"""The picture of `logbench handshakes`: Figure 1 of 2022 by round-trip time, and the ratios of its pairs.

It shows nothing that is not also in the tables and in --json.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from bench.figures import pictures
from bench.figures.report import Row
from streams.security.modes import MODES

COLOURS = dict(
    zip(MODES, ("#8c8c8c", "#3b7dd8", "#d9582b", "#e8a33d", "#7a4fb5", "#2a9d6f", "#a3386b", "#5b5b9f"), strict=False)
)
"""By mode; a mode beyond these gets one of matplotlib's own."""
PAIR_COLOURS = ("#d9582b", "#3b7dd8", "#2a9d6f", "#a3386b")


def available() -> None:
    """Raise a ClickException before anything is measured if pictures cannot be drawn."""
    if not pictures.available():
        raise click.ClickException(pictures.REMEDY)


def draw(path: Path, rows: Sequence[Row], ratios: Sequence[Row]) -> None:
    """Left the median handshakes by round-trip time with their intervals, right the ratios of the pairs."""
    from matplotlib.figure import Figure

    rtts = list(dict.fromkeys(row["rtt_ms"] for row in rows))
    modes = list(dict.fromkeys(row["mode"] for row in rows))
    figure = Figure(figsize=(10.5, 4.2), dpi=130, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    width = 0.8 / len(modes)
    for number, mode in enumerate(modes):
        found = [row["handshake_p50_ms"] for row in rows if row["mode"] == mode]
        middles = [each["value"] for each in found]
        errors = [[each["value"] - each["low"] for each in found], [each["high"] - each["value"] for each in found]]
        places = [place - 0.4 + (number + 0.5) * width for place in range(len(rtts))]
        left.bar(places, middles, width, yerr=errors, label=mode, color=COLOURS.get(mode), error_kw={"lw": 0.8})
    left.set_yscale("log")
    left.yaxis.set_major_formatter("{x:g}")
    left.set_xticks(range(len(rtts)), [f"{rtt:g}" for rtt in rtts])
    left.set(title="TLS handshake, without TCP connect", xlabel="round trip, ms", ylabel="median, ms (95 % interval)")
    left.legend(fontsize=8, frameon=False)

    for pair, colour in zip(dict.fromkeys(row["pair"] for row in ratios), PAIR_COLOURS, strict=False):
        found = [row["handshake"] for row in ratios if row["pair"] == pair]
        middles = [each["value"] for each in found]
        errors = [[each["value"] - each["low"] for each in found], [each["high"] - each["value"] for each in found]]
        right.errorbar(range(len(rtts)), middles, yerr=errors, marker="o", capsize=3, label=pair, color=colour)
    right.axhline(1, color="#8c8c8c", lw=0.8, ls=":")
    right.set_xticks(range(len(rtts)), [f"{rtt:g}" for rtt in rtts])
    right.set_ylim(0, None)
    right.set(title="ratio of handshakes (95 %)", xlabel="round trip, ms")
    right.legend(fontsize=8, frameon=False, loc="lower right")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
