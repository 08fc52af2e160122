"""The report of a comparison: one HTML file that needs nothing else, the two figures as PNG, everything as JSON."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from bench.compare import findings
from bench.compare.comparison import Comparison
from bench.figures import pictures, report
from bench.figures.bootstrap import Estimate
from bench.figures.pictures import Picture

TEMPLATE = Path(__file__).parent / "report.html"
FIGURES: Mapping[str, tuple[str, str]] = {
    "figure-1-tls-handshake-latency": ("handshake, median", "Figure 1: TLS handshake latency without TCP connect"),
    "figure-2-average-batch-send-duration": ("batch duration, mean", "Figure 2: average batch send duration"),
}
LINK = {"mode": "mode", **findings.VARIABLES}


class NoPictures(Exception):
    """matplotlib is not installed; the text says how to get it."""


def check_pictures() -> None:
    """Raise NoPictures before anything is measured."""
    if not pictures.available():
        raise NoPictures(f"the report's {pictures.REMEDY}; --no-report works without it")


def write(comparison: Comparison, directory: Path) -> list[Path]:
    """Write report.html, report.json and the PNGs into a directory, which is created if necessary."""
    directory.mkdir(parents=True, exist_ok=True)
    drawn = figures(comparison)
    for name, picture in drawn.items():
        pictures.png(picture, directory / f"{name}.png")
    (directory / "report.json").write_text(report.dumps({"command": "compare", **comparison.as_json()}) + "\n")
    (directory / "report.html").write_text(page(comparison, drawn))
    return sorted(directory.iterdir())


def figures(comparison: Comparison) -> dict[str, Picture]:
    """The figures that the rounds have values for, by file name."""
    by_metric = {line.metric: line for line in comparison.lines}
    drawn = {}
    for name, (metric, title) in FIGURES.items():
        if (line := by_metric.get(metric)) is not None:
            of = next(each.of for each in findings.METRICS if each.name == metric)
            rounds = {
                stream: [value for each in comparison.rounds if (value := of(each[stream])) is not None]
                for stream in (comparison.base, comparison.other)
            }
            modes = [comparison.links[stream]["mode"] for stream in rounds]
            drawn[name] = Picture(title, line.unit, rounds, modes, (line.base, line.other), line.ratio)
    return drawn


def page(comparison: Comparison, drawn: Mapping[str, Picture]) -> str:
    """The HTML; every inserted text is escaped."""
    names = [comparison.base, comparison.other]
    return Template(TEMPLATE.read_text()).substitute(
        title=_text(f"{comparison.other} compared with {comparison.base}"),
        verdict=_text(comparison.verdict.words),
        differs=_text(comparison.differs[0].upper() + comparison.differs[1:]),
        method=_text(comparison.method),
        links=_table(
            ["", *names], [[LINK[key], *(comparison.links[name].get(key, "–") for name in names)] for key in LINK]
        ),
        figures="\n".join(f"<figure>{pictures.svg(picture)}</figure>" for picture in drawn.values()),
        lines=_table(
            ["median over rounds, 95 % interval", *names, "ratio", "rounds"],
            [
                [
                    f"{line.metric}, {line.unit}" + " ◀ decides the verdict" * line.primary,
                    _span(line.base, 2),
                    _span(line.other, 2),
                    _span(line.ratio, 3),
                    line.rounds,
                ]
                for line in comparison.lines
            ],
        ),
        made_on=_table(["", ""], [[key, value] for key, value in comparison.made_on.items()]),
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    def cells(tag: str, values: Sequence[Any]) -> str:
        first, *others = (_cell(value) for value in values)
        return f'<tr><th scope="row">{first}</th>' + "".join(f"<{tag}>{each}</{tag}>" for each in others) + "</tr>"

    body = "".join(cells("td", row) for row in rows)
    columns = cells("th", head) if any(head) else ""
    return f"<div><table>{columns}{body}</table></div>"


def _cell(value: Any) -> str:
    if isinstance(value, tuple):  # a figure and the interval in small print below it
        figure, below = value
        return f"{_text(figure)}<small>{_text(below)}</small>"
    return _text(value)


def _span(found: Estimate, digits: int) -> tuple[str, str]:
    return f"{found.value:.{digits}f}", f"{found.low:.{digits}f} … {found.high:.{digits}f}"


def _text(value: Any) -> str:
    return html.escape(str(value if value is not None else "–"))
