"""The two figures of 2022, drawn with matplotlib: TLS handshake latency and average batch send duration, by stream.

Left, each round's figure is a dot, with the median over the rounds and its 95 % interval; right, their ratio with its
own interval. There is a difference if that does not cross the line at 1.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.figures.bootstrap import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#3b82f6", "#ea7317")
REMEDY = "pictures need matplotlib: run `make setup` in a checkout, elsewhere `pip install matplotlib`"
INK = "#0a0b0c"
"""Text and axes: becomes `currentColor` in SVG, so that the page chooses the colour."""
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "logbench",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


class Picture(NamedTuple):
    """The contents of one figure: each round's figures by stream (the base first), and the estimates from them."""

    title: str
    unit: str
    rounds: Mapping[str, Sequence[float]]
    modes: Sequence[str]
    estimates: Sequence[Estimate]
    ratio: Estimate


def available() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def svg(picture: Picture) -> str:
    """An <svg> element that takes its text's colour from the page around it."""
    import matplotlib as mpl

    out = io.StringIO()
    with mpl.rc_context(STYLE):
        _draw(picture).savefig(out, format="svg", transparent=True, metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :].replace(INK, "currentColor")


def png(picture: Picture, path: Path) -> None:
    """Write a PNG with a white background."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        _draw(picture).savefig(path, dpi=160, metadata={"Software": None})


def _draw(picture: Picture) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.4, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 1.3))
    figure.suptitle(picture.title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    _draw_rounds(left, picture)
    _draw_ratio(right, picture)
    return figure


def _draw_rounds(axes: Axes, picture: Picture) -> None:
    for place, (values, estimate, colour) in enumerate(
        zip(picture.rounds.values(), picture.estimates, COLOURS, strict=True)
    ):
        spread = [place - 0.28 + 0.2 * number / max(len(values) - 1, 1) for number in range(len(values))]
        axes.plot(spread, values, "o", color=colour, alpha=0.45, markersize=4, markeredgewidth=0)
        axes.errorbar([place + 0.08], [estimate.value], _arms(estimate), fmt="o", color=colour, capsize=5, linewidth=2)
        axes.annotate(f"{estimate.value:.2f} {picture.unit}", (place + 0.16, estimate.value), va="center")
    axes.set_xticks(
        range(len(picture.rounds)),
        [f"{stream}\n{mode}" for stream, mode in zip(picture.rounds, picture.modes, strict=True)],
    )
    axes.set_xlim(-0.45, 1.65)
    axes.set_ylim(0, 1.15 * max(max(values) for values in picture.rounds.values()))
    axes.set_ylabel(picture.unit)
    axes.tick_params(axis="x", length=0)


def _draw_ratio(axes: Axes, picture: Picture) -> None:
    base, other = picture.rounds
    axes.axhline(1, color=INK, linestyle=":", linewidth=1)
    axes.errorbar([0], [picture.ratio.value], _arms(picture.ratio), fmt="s", color=COLOURS[1], capsize=6, linewidth=2)
    axes.annotate(f"{picture.ratio.value:.3f}", (0.1, picture.ratio.value), va="center")
    far = max(abs(edge - 1) for edge in picture.ratio)
    far = 1.3 * max(far, 0.05) if far < 10 else 1.0
    axes.set_ylim(1 - min(far, 1), 1 + far)
    axes.set_xlim(-0.4, 0.7)
    axes.set_xticks([0], [f"{other} / {base}\n95 % interval"])
    axes.tick_params(axis="x", length=0)


def _arms(estimate: Estimate) -> list[list[float]]:
    """How far the interval reaches below and above; 0 where it is infinite."""
    arms = estimate.value - estimate.low, estimate.high - estimate.value
    return [[arm if 0 <= arm < float("inf") else 0.0] for arm in arms]
