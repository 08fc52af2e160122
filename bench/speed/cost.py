"""`logbench cost`: what one choice costs compared with another, in CPU per GB and in throughput, on long-lived links.

Both forwarders run side by side against one receiver (`telemetry`: each against its own), with their links open the
whole time; they take turns (a b, b a, …), so whatever the machine does affects both alike. A round gives one ratio; the
interval comes from figures/bootstrap.py. After every few rounds all processes are restarted: two processes of one
program differ slightly for as long as they live, and that must not pass for a difference between the choices. The first
round after each start is discarded.
"""

from __future__ import annotations

import contextlib
import functools
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from bench.figures import bootstrap, report
from bench.figures.measure import percentile
from bench.lab.load import Base
from bench.lab.rig import Rig, Setup
from bench.speed import telemetry_cost
from bench.speed.fullspeed import between_limits, measure
from bench.speed.telemetry_cost import Turn
from streams.security.modes import MODES

WARM_UP_ROUNDS = 1
ROUNDS_A_START = 4
Sides = Callable[[Path], contextlib.AbstractContextManager[Mapping[str, Turn]]]
FIGURES: Mapping[str, Callable[[Mapping[str, Any]], float]] = {
    "forwarder, CPU-s/GB": lambda run: float(run["cpu_seconds_per_gb"]["forwarder"]),
    "receiver, CPU-s/GB": lambda run: float(run["cpu_seconds_per_gb"]["receiver"]),
    "both, CPU-s/GB": lambda run: float(run["cpu_seconds_per_gb"]["forwarder"] + run["cpu_seconds_per_gb"]["receiver"]),
    "MB/s": lambda run: float(run["megabytes_per_second"]),
}


def choices(what: str, base_mode: str, mode: str) -> dict[str, Setup]:
    """The two setups by name; they differ in one setting. The first is the base of the ratio."""
    plain = Setup(mode)
    if what == "modes":
        return {base_mode: replace(plain, mode=base_mode), mode: plain}
    if what == "twin":
        return {"no twin": plain, "one twin": replace(plain, twins=1)}
    return {"spool in memory": replace(plain, spool="memory"), "spool on disk": plain}


@contextlib.contextmanager
def _beside_each_other(
    sink: str, setups: Mapping[str, Setup], base: Base, copies: int, directory: Path
) -> Iterator[Mapping[str, Turn]]:
    """Two forwarders of one receiver, by name; a turn is one run at full speed."""
    with (
        Rig(directory, sink=sink, modes=[setup.mode for setup in setups.values()]) as rig,
        contextlib.ExitStack() as up,
    ):
        forwarders = {name: up.enter_context(rig.forwarder(setup)) for name, setup in setups.items()}
        yield {name: functools.partial(measure, rig, each, base, copies) for name, each in forwarders.items()}


@click.command(short_help="Measure the CPU and throughput cost of one choice.")
@click.argument("what", type=click.Choice(["modes", "twin", "spool", "telemetry"]), default="modes")
@click.option(
    "--base-mode",
    type=click.Choice(list(MODES)),
    default="classical",
    show_default=True,
    help="Base of the ratio; used by `modes` alone.",
)
@click.option(
    "--mode",
    type=click.Choice(list(MODES)),
    default="hybrid",
    show_default=True,
    help="Mode compared with --base-mode; for the other choices, the mode of both sides.",
)
@click.option(
    "--rounds",
    type=click.IntRange(2),
    default=10,
    show_default=True,
    help="Pairs of runs; more rounds narrow the interval.",
)
@click.option("--records", default=500_000, show_default=True, help="Records per run; each round has two runs.")
@report.record_bytes_option
@report.seed_option
@report.sink_option
@report.as_json_option
def cost(
    what: str,
    base_mode: str,
    mode: str,
    rounds: int,
    records: int,
    record_bytes: int,
    seed: int,
    sink: str,
    as_json: bool,
) -> None:
    """CPU per GB and throughput of one choice compared with another.

    \b
    modes      --mode compared with --base-mode
    twin       one twin compared with none
    spool      spool on disk compared with one in memory
    telemetry  metrics, with /metrics and /api/v1/streams read every second, compared with programs without metrics

    Measures CPU seconds per GB of input (forwarder, receiver, both) and MB/s. Two forwarders with long-lived links take
    turns; each pair of turns gives one ratio, and the table shows a 95 % interval over the pairs. If the interval
    contains 1, this many rounds show no difference.

    Takes two to three minutes with the defaults.
    """
    with report.workplace(as_json) as (directory, console):
        base, copies = report.base_file(directory, console, records, seed=seed, record_bytes=record_bytes)
        if what == "telemetry":
            sides: Sides = functools.partial(telemetry_cost.sides, sink, Setup(mode), base, copies)
        else:
            sides = functools.partial(_beside_each_other, sink, choices(what, base_mode, mode), base, copies)
        runs: dict[str, list[dict[str, Any]]] = {}
        with between_limits(base) as limits:
            for done in range(0, rounds, ROUNDS_A_START):
                with console.status(f"{done} of {rounds} rounds"):
                    _some_rounds(sides, directory, min(ROUNDS_A_START, rounds - done), runs)
    first, second = runs
    rows = [compare_figure(figure, *runs.values()) for figure in FIGURES]
    if as_json:
        report.emit("cost", rows, base=first, other=second, limit_megabytes_per_second=limits, rounds=runs)
    else:
        notes = [report.limit_note(limits)]
        if what == "telemetry":
            notes.append(telemetry_cost.verdict(rows))
        title = f"{second} compared with {first}, into {sink}, {rounds} rounds"
        report.show(console, title, _columns(first, second), rows, notes)


def _some_rounds(sides: Sides, directory: Path, rounds: int, runs: dict[str, list[dict[str, Any]]]) -> None:
    """Start both sides, and let them take turns."""
    with tempfile.TemporaryDirectory(dir=directory) as place, sides(Path(place)) as turns:
        for name in turns:
            runs.setdefault(name, [])
        for number in range(rounds + WARM_UP_ROUNDS):
            for name in list(turns)[:: -1 if number % 2 else 1]:
                run = turns[name]()
                if number >= WARM_UP_ROUNDS:
                    runs[name].append(run)


def compare_figure(
    figure: str, bases: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """One figure of both sides, and the difference and ratio over their pairs."""
    least = 0.01 / bases[0]["megabytes"] * 1e3  # one tick of the kernel's clock, where it counted no CPU at all
    of = FIGURES[figure]
    pairs = [(max(of(base), least), max(of(other), least)) for base, other in zip(bases, others, strict=True)]
    return {
        "figure": figure,
        "base": percentile((base for base, _ in pairs), 0.5),
        "other": percentile((other for _, other in pairs), 0.5),
        "difference": bootstrap.estimate([other - base for base, other in pairs], middle=statistics.fmean)._asdict(),
        "ratio": bootstrap.ratio(*zip(*pairs, strict=True))._asdict(),
    }


def _columns(base: str, other: str) -> list[report.Column]:
    def span(values: Mapping[str, float], form: str) -> str:
        return bootstrap.Estimate(**values).text(form)

    return [
        ("figure", lambda r: r["figure"]),
        (base, lambda r: f"{r['base']:.2f}"),
        (other, lambda r: f"{r['other']:.2f}"),
        ("difference [95 %]", lambda r: span(r["difference"], "+.2f")),
        ("ratio [95 %]", lambda r: span(r["ratio"], ".3f")),
    ]
