"""`logbench chaos`: real processes, a real Kafka, and a seeded schedule of faults while numbered records flow.

Faults (faults.py): kill -9 and SIGSTOP of forwarder, receivers and broker; a broker that refuses batches for troubles
of its own; links cut, slowed, delayed or silenced; addresses at which nothing listens for a while;
steps of the forwarder's clock; reloads; renewed certificates; a log that nobody reads; and what happens to files:
rotated, copied, truncated, with holes, edited, deleted with their inode used again, gone with their directory. Then the
faults end, everything drains, and the oracle reads the topics. A failing seed keeps its directory and can be run again
with the same schedule.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from bench.chaos.seed import DRAIN_SECONDS, Chaos, Outcome
from bench.figures import report
from bench.lab.kafka import Kafka
from bench.lab.oracle import Finding, OracleFailed
from bench.lab.processes import StartFailed

PAGE_WIDTH = 120
MODES_BY_DEFAULT = ("classical", "pq-auth", "hybrid")
COUNTED = ("sent", "stored", "missing", "excused", "twice", "out_of_order", "foreign")


def _counts(findings: Iterable[Finding]) -> dict[str, int]:
    return {name: sum(getattr(finding, name) for finding in findings) for name in COUNTED}


COUNTS: Sequence[report.Column] = (
    ("sent", lambda r: f"{r['sent']:,}"),
    ("stored", lambda r: f"{r['stored']:,}"),
    ("missing", lambda r: f"{r['missing']:,}"),
    ("not promised", lambda r: f"{r['excused']:,}"),
    ("duplicates", lambda r: f"{r['twice']:,}"),
    ("out of order", lambda r: f"{r['out_of_order']:,}"),
    ("foreign", lambda r: f"{r['foreign']:,}"),
    ("resets", lambda r: str(r["resets"])),
)


def streams_table(outcome: Outcome) -> Table:
    """One line per stream of a seed."""
    rows = [
        {"stream": each.stream, **_counts([each]), "resets": outcome.resets.get(each.stream, "?")}
        for each in outcome.findings
    ]
    return report.table(f"seed {outcome.seed}", [("stream", lambda r: r["stream"]), *COUNTS], rows)


def summary_table(outcomes: list[Outcome]) -> Table:
    """One line per seed, and the total."""

    def line(title: str, some: list[Outcome]) -> dict[str, Any]:
        return {
            "seed": title,
            "seconds": sum(each.seconds for each in some),
            "kills": sum(each.kills for each in some),
            "faults": sum(sum(each.faults.values()) for each in some),
            **_counts([finding for each in some for finding in each.findings]),
            "resets": sum(sum(each.resets.values()) for each in some),
        }

    columns: list[report.Column] = [
        ("seed", lambda r: r["seed"]),
        ("seconds", lambda r: f"{r['seconds']:.0f}"),
        ("kills", lambda r: str(r["kills"])),
        ("faults", lambda r: str(r["faults"])),
        *COUNTS,
    ]
    return report.table("chaos", columns, [*(line(str(each.seed), [each]) for each in outcomes), line("all", outcomes)])


def _sentence(outcome: Outcome) -> str:
    verdict = "exact" if outcome.exact else "NOT EXACT"
    drained = "" if outcome.drained else f", not drained within {DRAIN_SECONDS:.0f} s"
    faults = sum(outcome.faults.values())
    return (
        f"seed {outcome.seed}: {verdict}{drained}; {outcome.kills} kills in {faults} faults, {outcome.cuts} links "
        f"cut in a frame, {outcome.reused_inodes} inodes used again, {outcome.dropped} dropped, "
        f"{len(outcome.tracebacks)} tracebacks"
    )


def faults_table(outcomes: list[Outcome]) -> Table:
    """How often each fault was injected."""
    times = sum((Counter(outcome.faults) for outcome in outcomes), Counter[str]())
    columns: list[report.Column] = [("fault", lambda r: r["fault"]), ("times", lambda r: str(r["times"]))]
    return report.table("faults", columns, [{"fault": name, "times": each} for name, each in sorted(times.items())])


def said_table(outcomes: list[Outcome]) -> Table:
    """What the forwarder said of files and its log."""
    events = sorted({event for outcome in outcomes for event in outcome.said})
    rows = [
        {"event": event, "said": [outcome.said[event] for outcome in outcomes if event in outcome.said]}
        for event in events
    ]
    columns: list[report.Column] = [
        ("event", lambda r: r["event"]),
        ("times", lambda r: str(sum(times for times, _ in r["said"]))),
        ("bytes or lines", lambda r: f"{sum(size for _, size in r['said']):,}"),
    ]
    return report.table("what the forwarder said", columns, rows)


def run_seeds(
    seeds: list[int], seconds: float, directory: Path, console: Console, modes: Sequence[str] = MODES_BY_DEFAULT
) -> list[Outcome]:
    """Run one seed after another on one Kafka; a seed that is not exact keeps its directory."""
    outcomes = []
    with Kafka(directory / "kafka") as kafka:
        for seed in seeds:
            home = directory / f"seed-{seed}"
            with console.status(f"seed {seed}: {seconds:.0f} s of faults"):
                outcome = Chaos(seed, home, kafka, modes).run(seconds)
            outcomes.append(outcome)
            console.print(streams_table(outcome))
            console.print(_sentence(outcome))
            for death in outcome.deaths:
                console.print(f"  ended by itself: {death}", markup=False)
            for words in outcome.tracebacks:
                console.print(f"  traceback: {words}", markup=False)
            if outcome.exact:
                shutil.rmtree(home)
            else:
                again = f"--seed {seed} --minutes {seconds / 60:g} --modes {','.join(modes)}"
                console.print(f"  kept {home}; run it again: logbench chaos {again}")
    return outcomes


@click.command(short_help="Kill everything while records flow, then count losses.")
@click.option("--seed", default=1, show_default=True, help="First seed; it determines the schedule of faults.")
@click.option(
    "--seeds",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Number of consecutive seeds, run one after the other.",
)
@click.option(
    "--minutes", type=click.FloatRange(0.1), default=1.0, show_default=True, help="Duration of each seed's faults."
)
@click.option(
    "--modes",
    default=",".join(MODES_BY_DEFAULT),
    show_default=True,
    type=report.Modes(),
    help="Security modes, separated by commas, or all: a stream for each. The first two read a file each, the others "
    "are their twins in turn.",
)
@report.as_json_option
def chaos(seed: int, seeds: int, minutes: float, modes: list[str], as_json: bool) -> None:
    """Kill, stop and cut off everything while records flow; then count missing, duplicated and reordered records.

    Two receivers, one forwarder and a real Kafka broker are killed (SIGKILL) and stopped (SIGSTOP), batches are refused
    for troubles of the broker's own, links are cut, slowed, silenced and refused, the forwarder's clock is stepped,
    streams reload, certificates and delegated keys are renewed, and nobody reads the forwarder's log. Files rotate, are
    copied, truncated and edited, get holes, are deleted so that their inodes are used again, and go away with their
    directory. Then everything drains, and an independent reader counts the records in Kafka.

    Records that were written between the copy and the truncate of a rotation are not promised to be stored
    (docs/delivery.md). They are known by number; those that are not stored are counted apart.

    Each seed takes --minutes plus the drain (at most 4 minutes). Exit code 0: every seed exact; 1: records missing,
    duplicated, out of order or not drained, or a program ended by itself. A failing seed keeps its directory.
    """
    console = Console(stderr=as_json)
    if not console.is_terminal:
        console.width = PAGE_WIDTH
    directory = Path(tempfile.mkdtemp(prefix="logbench-chaos-"))
    try:
        outcomes = run_seeds(list(range(seed, seed + seeds)), minutes * 60, directory, console, modes)
    except (StartFailed, OracleFailed) as error:
        raise click.ClickException(f"{error}\nkept {directory}") from error
    if as_json:
        click.echo(json.dumps([asdict(outcome) for outcome in outcomes], indent=2))
    else:
        console.print(faults_table(outcomes))
        console.print(said_table(outcomes))
        console.print(summary_table(outcomes))
    exact = all(outcome.exact for outcome in outcomes)
    if exact:
        shutil.rmtree(directory, ignore_errors=True)
    sys.exit(0 if exact else 1)
