"""`logbench compare`: two streams side by side, with intervals, a verdict in words, and a report with pictures.

The figures come from fresh processes on this machine (rounds.py) or a running forwarder (production.py).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from bench.compare import html
from bench.compare.comparison import Comparison, conclude
from bench.compare.production import observe
from bench.compare.rounds import Plan, Side, running
from bench.figures import report
from bench.lab.adminclient import admin_of
from streams.security.modes import MODES
from streams.telemetry.client import NotAnswered


def compare_fresh(plan: Plan, as_json: bool) -> Comparison:
    """Start fresh processes and measure a plan."""
    found, last = [], plan.warm_up_rounds + plan.rounds - 1
    with (
        report.workplace(as_json) as (directory, console),
        running(plan, directory, console) as runner,
        console.status("starting") as status,
    ):
        for number in range(last + 1):
            status.update(f"round {number} of {last}")
            found.append(runner.round(number))
        links = runner.links
    names = plan.base.name, plan.other.name
    return conclude(names, links, found[plan.warm_up_rounds :], method=_method(plan), seed=plan.seed)


def _method(plan: Plan) -> str:
    return (
        f"fresh processes: one receiver, one sink ({plan.sink}), in every round a new forwarder with both streams; "
        f"the same records in the same batches of {plan.batch_kib} KiB, {plan.batches_per_second} a second, in turns "
        f"batch by batch (a b b a …); {plan.rounds} rounds, after {plan.warm_up_rounds} discarded as warm-up"
    )


def compare_running(admin: str, names: tuple[str, str], seconds: float, slices: int, as_json: bool) -> Comparison:
    """Observe a running forwarder."""
    with Console(stderr=as_json).status("observing") as status:
        observed = observe(
            admin,
            *names,
            seconds=seconds,
            slices=slices,
            each=lambda number: status.update(f"slice {number + 1} of {slices}"),
        )
    return conclude(names, observed.links, observed.slices, method=observed.method, seed=None)


@click.command(short_help="Measure what one stream costs compared with another.")
@click.argument("base", default="http")
@click.argument("other", required=False)
@click.option(
    "--base-mode", type=click.Choice(list(MODES)), default="classical", show_default=True, help="Security mode of BASE."
)
@click.option(
    "--mode", type=click.Choice(list(MODES)), default="hybrid", show_default=True, help="Security mode of OTHER."
)
@report.sink_option
@click.option(
    "--rounds",
    type=click.IntRange(2),
    default=Plan.rounds,
    show_default=True,
    help="Rounds, or time slices with --admin or --config; fewer than 8 never show a difference.",
)
@click.option(
    "--batches", type=click.IntRange(1), default=Plan.batches, show_default=True, help="Batches per stream and round."
)
@click.option(
    "--batch-kib",
    type=click.IntRange(64, 900),
    default=Plan.batch_kib,
    show_default=True,
    help="Size of a batch in KiB, before compression.",
)
@click.option(
    "--batches-per-second",
    type=click.IntRange(1, 1000),
    default=Plan.batches_per_second,
    show_default=True,
    help="Rate of the paced batches, both streams together.",
)
@click.option(
    "--handshakes",
    type=click.IntRange(0),
    default=Plan.handshakes,
    show_default=True,
    help="New links per stream and round.",
)
@click.option(
    "--records",
    type=click.IntRange(0),
    default=Plan.records,
    show_default=True,
    help="Records per stream and round at full speed (CPU and MB/s); 0 skips that part.",
)
@report.record_bytes_option
@report.seed_option
@click.option("--admin", help="Observe a running forwarder at this admin address (HOST:PORT or URL) instead.")
@click.option(
    "--config",
    type=click.Path(path_type=Path, exists=True),
    help="Like --admin, with the address from this logfwd.toml.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(1),
    default=60.0,
    show_default=True,
    help="How long to observe a running forwarder.",
)
@click.option(
    "--repeat",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Repeat the whole run this often and count the verdicts; writes no report.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("compare-report"),
    show_default=True,
    help="Directory of the report.",
)
@click.option("--report/--no-report", "wanted", default=True, help="Write report.html, report.json and PNGs to --out.")
@report.as_json_option
def compare(
    base: str,
    other: str | None,
    base_mode: str,
    mode: str,
    rounds: int,
    admin: str | None,
    config: Path | None,
    seconds: float,
    repeat: int,
    out: Path,
    wanted: bool,
    as_json: bool,
    **amounts: Any,
) -> None:
    """What stream OTHER costs compared with stream BASE, for example `logbench compare http pq-stream`.

    Measures batch duration (sealed until acknowledged), TLS handshake and TCP connect in ms, CPU seconds per GB and
    MB/s at full speed. Both streams carry the same records in the same batches over real links into a real sink, in
    turns, from fresh processes; the names are free. Each figure is the median over the rounds with its 95 % interval.
    The median batch duration alone decides the verdict, at 99 %.

    With --admin or --config, BASE and OTHER are streams of a running forwarder, observed under its own load.

    Takes two to four minutes with the defaults. The exit code does not depend on the verdict.
    """
    names = base, other or ("pq-stream" if mode.startswith("hybrid") else f"{base}-{mode}")
    if names[0] == names[1]:
        raise click.UsageError("BASE and OTHER must differ; to measure a mode against itself, give OTHER another name")
    wanted = wanted and repeat == 1
    try:
        if wanted:
            html.check_pictures()
        if admin or config:
            address = admin or admin_of(config or Path())
            runs = _announced(compare_running(address, names, seconds, rounds, as_json) for _ in range(repeat))
        else:
            plan = Plan(Side(names[0], base_mode), Side(names[1], mode), rounds=rounds, **amounts)
            runs = _announced(compare_fresh(plan, as_json) for _ in range(repeat))
    except (NotAnswered, html.NoPictures) as error:
        raise click.ClickException(str(error)) from error
    if wanted:
        html.write(runs[0], out)
    if repeat > 1:
        show_runs(runs, as_json)
    else:
        show_run(runs[0], as_json)
    if wanted:
        click.echo(f"report: {out / 'report.html'}", err=True)


def _announced(runs: Iterable[Comparison]) -> list[Comparison]:
    """All of them; the verdict of each is printed as soon as it is over."""
    found = []
    for number, run in enumerate(runs, 1):
        found.append(run)
        click.echo(f"run {number}: {run.verdict.words}", err=True)
    return found


def show_run(comparison: Comparison, as_json: bool) -> None:
    """One run, as a table or as JSON."""
    if as_json:
        report.emit("compare", comparison.as_json()["lines"], **comparison.as_json())
        return
    base, other = comparison.base, comparison.other
    columns: list[report.Column] = [
        ("metric", lambda line: f"{line['metric']}, {line['unit']}" + " ◀" * line["primary"]),
        (f"{base} ({comparison.links[base]['mode']})", lambda line: line["base"].text(between="\n")),
        (f"{other} ({comparison.links[other]['mode']})", lambda line: line["other"].text(between="\n")),
        ("ratio [95 %]", lambda line: line["ratio"].text(".3f", "\n")),
    ]
    notes = [
        "medians over the rounds and the second stream's ratio to the first, each with its 95 % interval; "
        "◀ decides the verdict",
        comparison.differs,
        comparison.method,
        f"[bold]{comparison.verdict.words}[/]",
    ]
    rows = [line._asdict() for line in comparison.lines]
    report.show(Console(), f"{other} compared with {base}", columns, rows, notes)


def show_runs(runs: Sequence[Comparison], as_json: bool) -> None:
    """Several runs: each verdict, how many runs saw no difference, how many pairs of runs agree."""
    ratios = [next(line.ratio for line in run.lines if line.primary) for run in runs]
    calm = sum(run.verdict.found == "no difference" for run in runs)
    pairs = list(itertools.combinations(ratios, 2))
    agreeing = sum(one.low <= two.high and two.low <= one.high for one, two in pairs)
    counts = {"runs": len(runs), "no_difference": calm, "pairs": len(pairs), "agreeing_pairs": agreeing}
    rows: list[dict[str, Any]] = [
        {"run": number, "ratio": ratio, "verdict": run.verdict.words}
        for number, (run, ratio) in enumerate(zip(runs, ratios, strict=True), 1)
    ]
    if as_json:
        report.emit("compare", [{**row, "ratio": row["ratio"]._asdict()} for row in rows], **counts)
        return
    columns: list[report.Column] = [
        ("run", lambda row: str(row["run"])),
        ("ratio [95 %]", lambda row: row["ratio"].text(".3f")),
        ("verdict", lambda row: row["verdict"]),
    ]
    notes = [
        f"[bold]{calm} of {len(runs)} runs show no difference; "
        f"the 95 % intervals of {agreeing} of {len(pairs)} pairs of runs overlap[/]",
        runs[0].differs,
        runs[0].method,
    ]
    report.show(Console(), f"{runs[0].other} compared with {runs[0].base}, {len(runs)} runs", columns, rows, notes)
