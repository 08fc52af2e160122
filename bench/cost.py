"""`logbench cost`: what one choice costs beside another, in CPU for each GB, on long links.

Both forwarders run beside each other against one receiver, each with its links open for the whole time; they take
turns (a b, b a, …), so what the machine does to one it does to the other. A round gives one ratio; the interval comes
from bench/bootstrap.py. The first round of each is thrown away.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import click

from bench import bootstrap, report
from bench.fullspeed import between_limits, measure
from bench.load import Base
from bench.measure import percentile
from bench.rig import MODES, Forwarder, Rig, Setup

WARM_UP_ROUNDS = 1


def choices(what: str, base_mode: str, mode: str) -> dict[str, Setup]:
    """The two setups by name; they differ in one thing. The first is the base of the ratio."""
    plain = Setup(mode)
    if what == "modes":
        return {base_mode: replace(plain, mode=base_mode), mode: plain}
    if what == "twin":
        return {"no twin": plain, "one twin": replace(plain, twins=1)}
    return {"spool in memory": replace(plain, spool="memory"), "spool on disk": plain}


@click.command()
@click.argument("what", type=click.Choice(["modes", "twin", "spool"]), default="modes")
@click.option("--base-mode", type=click.Choice(MODES), default="classical", show_default=True, help="Of `modes`.")
@click.option("--mode", type=click.Choice(MODES), default="hybrid", show_default=True)
@click.option("--rounds", type=click.IntRange(2), default=10, show_default=True, help="Pairs; the interval needs many.")
@click.option("--records", default=500_000, show_default=True, help="For each of a round.")
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
    """CPU for each GB of one choice beside another: modes (hybrid, classical), twin or none, spool on disk or not.

    Two forwarders with long links take turns against one receiver; each pair of turns gives one ratio, and a 95 %
    interval over the pairs is printed: if it holds 1, this many rounds show no difference.
    """
    setups = choices(what, base_mode, mode)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in setups}
    with report.workplace(as_json) as (directory, console):
        base, copies = report.base_file(directory, console, records, seed=seed, record_bytes=record_bytes)
        (first, one), (second, other) = setups.items()
        with (
            Rig(directory, sink=sink, modes=[one.mode, other.mode]) as rig,
            rig.forwarder(one) as forwarder,
            rig.forwarder(other) as opposite,
            between_limits(base) as limits,
        ):
            pair = {first: forwarder, second: opposite}
            for number in range(rounds + WARM_UP_ROUNDS):
                with console.status(f"round {number} of {rounds}"):
                    _round(rig, pair, base, copies, runs, number)
    rows = [
        compare_costs(process, *(each[WARM_UP_ROUNDS:] for each in runs.values()))
        for process in ("forwarder", "receiver", "both")
    ]
    if as_json:
        report.emit("cost", rows, base=first, other=second, limit_megabytes_per_second=limits, rounds=runs)
    else:
        title = f"{second} beside {first}: CPU-s/GB into {sink}, {rounds} rounds"
        report.show(console, title, _columns(first, second), rows, [report.limit_note(limits)], upright=True)


def _round(
    rig: Rig,
    pair: Mapping[str, Forwarder],
    base: Base,
    copies: int,
    runs: Mapping[str, list[dict[str, Any]]],
    number: int,
) -> None:
    for name in sorted(pair, reverse=bool(number % 2)):
        runs[name].append(measure(rig, pair[name], base, copies))


def _cost(run: Mapping[str, Any], process: str) -> float:
    costs = run["cpu_seconds_per_gb"]
    return float(costs["forwarder"] + costs["receiver"] if process == "both" else costs[process])


def compare_costs(
    process: str, bases: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """One process's paired figures."""
    pairs = [(_cost(base, process), _cost(other, process)) for base, other in zip(bases, others, strict=True)]
    least = 0.01 / bases[0]["megabytes"] * 1e3  # one tick of the kernel's clock
    return {
        "process": process,
        "base_cpu_seconds_per_gb": percentile((base for base, _ in pairs), 0.5),
        "other_cpu_seconds_per_gb": percentile((other for _, other in pairs), 0.5),
        "difference": bootstrap.estimate([other - base for base, other in pairs], middle=statistics.fmean)._asdict(),
        "ratio": bootstrap.ratio(*zip(*((max(a, least), max(b, least)) for a, b in pairs), strict=True))._asdict(),
    }


def _columns(base: str, other: str) -> list[report.Column]:
    def span(values: Mapping[str, float], form: str) -> str:
        found = bootstrap.Estimate(**values)
        return f"{found.value:{form}} [{found.low:{form}} … {found.high:{form}}]"

    return [
        ("process", lambda r: r["process"]),
        (base, lambda r: f"{r['base_cpu_seconds_per_gb']:.2f}"),
        (other, lambda r: f"{r['other_cpu_seconds_per_gb']:.2f}"),
        ("difference [95 %]", lambda r: span(r["difference"], "+.2f")),
        ("ratio [95 %]", lambda r: span(r["ratio"], ".3f")),
    ]
