"""`logbench throughput`: a file through forwarder, TLS and receiver into a real sink, next to the machine's limit."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from bench.figures import report
from bench.lab.load import Base
from bench.lab.rig import Rig, Setup
from bench.speed.fullspeed import between_limits, measure
from streams.security.modes import MODES


def _each(figures: dict[str, float], digits: int) -> str:
    return " / ".join(f"{value:.{digits}f}" for value in figures.values())


FIGURES: Sequence[report.Column] = (
    ("mode", lambda r: r["mode"]),
    ("records/s", lambda r: f"{r['records_per_second']:,.0f}"),
    ("MB/s", lambda r: f"{r['megabytes_per_second']:.0f}"),
    (
        "machine limit before / after, MB/s",
        lambda r: " / ".join(f"{value:.0f}" for value in r["limit_megabytes_per_second"]),
    ),
    ("share of limit", lambda r: f"{r['share_of_limit']:.0%}"),
    ("records per forwarder CPU-s", lambda r: f"{r['records_per_forwarder_cpu_second']:,.0f}"),
    ("CPU-s/GB", lambda r: _each(r["cpu_seconds_per_gb"], 2)),
    ("CPU as a multiple of the limit's", lambda r: _each(r["cpu_of_limit"], 2)),
    ("peak RSS, MB", lambda r: _each(r["peak_rss_mb"], 0)),
    ("batch duration p50 / p99, ms", lambda r: f"{r['batch_duration_p50_ms']:.1f} / {r['batch_duration_p99_ms']:.1f}"),
)
NOTES = (
    "CPU (per GB of input) and peak RSS: forwarder / receiver / broker. Batch duration: sealed → acknowledged.",
    "The machine limit is a loop on one CPU, so it takes 1000 / (limit in MB/s) CPU-s/GB.",
)


@click.command(short_help="Measure speed, CPU and memory from file to sink.")
@click.option(
    "--records",
    default=500_000,
    show_default=True,
    help="Total records; a file of up to 500 000 is read as often as needed.",
)
@report.record_bytes_option
@report.seed_option
@click.option(
    "--mode",
    "modes",
    type=click.Choice(list(MODES)),
    multiple=True,
    default=("hybrid",),
    show_default=True,
    help="Security mode; repeat it to measure several in turn.",
)
@report.sink_option
@click.option(
    "--codec", type=click.Choice(["zstd", "none"]), default="zstd", show_default=True, help="Compression of batches."
)
@click.option(
    "--spool",
    type=click.Choice(["disk", "memory"]),
    default="disk",
    show_default=True,
    help="memory: the same spool with its state_dir on tmpfs (/dev/shm), where batches do not survive the host.",
)
@click.option(
    "--streams", type=click.IntRange(1, 32), default=1, show_default=True, help="Streams, which share the records."
)
@click.option("--twins", type=click.IntRange(0, 8), default=0, show_default=True, help="Twins per stream.")
@click.option("--rounds", default=1, show_default=True, help="Runs of each mode, in turn; the median is shown.")
@click.option("--threads", is_flag=True, help="Also show the CPU seconds of each of the forwarder's threads.")
@click.option(
    "--profile",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a speedscope profile of the last run's forwarder (py-spy), which slows that run down.",
)
@report.as_json_option
def throughput(
    records: int,
    record_bytes: int,
    seed: int,
    modes: tuple[str, ...],
    sink: str,
    codec: str,
    spool: str,
    streams: int,
    twins: int,
    rounds: int,
    threads: bool,
    profile: Path | None,
    as_json: bool,
) -> None:
    """File to sink at full speed: records/s, MB/s, CPU, memory, and the share of this machine's own limit.

    The clock runs from the moment the files appear until the last batch is in the sink; starting and connecting are not
    included. The machine limit is validate + frame + compress in one loop on one thread, measured before and after each
    run: between machines and times of day compare shares of it, not MB/s or CPU seconds. CPU is in seconds per GB of
    input, memory in resident MB.

    Takes half a minute with the defaults. For reliable figures use --records 5000000 --rounds 5 on a quiet machine.
    """
    runs: dict[str, list[dict[str, Any]]] = {mode: [] for mode in modes}
    with report.workplace(as_json) as (directory, console):
        base, copies = report.base_file(
            directory, console, -(-records // streams), seed=seed, record_bytes=record_bytes
        )
        for number in range(rounds):
            for mode, done in runs.items():
                size = base.size * copies * streams
                setup = Setup(mode, codec=codec, spool=spool, streams=streams, twins=twins, input_bytes=size)
                with console.status(f"round {number + 1} of {rounds}: {mode}"):
                    place = directory / f"{number}-{mode}"
                    done.append(_run(place, setup, base, copies, sink=sink, threads=threads, profile=profile))
    rows = [{**middle(done), "mode": mode, "rounds": done} for mode, done in runs.items()]
    if as_json:
        report.emit(
            "throughput", rows, setup={"sink": sink, "codec": codec, "spool": spool, "twins": twins, "streams": streams}
        )
        return
    title = f"file → forwarder → TLS → receiver → {sink}: {rows[0]['records']:,} records of {record_bytes} bytes"
    detail = f"codec {codec}, spool on {spool}, {streams} streams, {twins} twins each, median of {rounds} rounds"
    notes = [*NOTES, *_thread_lines(rows[-1]["rounds"][-1])]
    report.show(console, f"{title}\n{detail}", FIGURES, rows, notes, upright=True)


def _run(
    directory: Path, setup: Setup, base: Base, copies: int, *, sink: str, threads: bool, profile: Path | None
) -> dict[str, Any]:
    with (
        Rig(directory, sink=sink, modes=[setup.mode]) as rig,
        rig.forwarder(setup) as forwarder,
        between_limits(base, compress=setup.codec == "zstd") as limits,
    ):
        run = measure(rig, forwarder, base, copies, threads=threads, profile=profile)
    limit = statistics.fmean(limits)
    return {
        **run,
        "limit_megabytes_per_second": limits,
        "share_of_limit": run["megabytes_per_second"] / limit,
        "cpu_of_limit": {name: each * limit / 1e3 for name, each in run["cpu_seconds_per_gb"].items()},
    }


def middle(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The median of each figure over the rounds."""
    return {
        key: _median([run[key] for run in runs]) for key in runs[0] if key not in ("threads_cpu_seconds", "profile")
    }


def _median(values: Sequence[Any]) -> Any:
    if isinstance(values[0], dict):
        return {key: _median([value[key] for value in values]) for key in values[0]}
    if isinstance(values[0], list):
        return [_median(column) for column in zip(*values, strict=True)]
    return statistics.median(values)


def _thread_lines(run: dict[str, Any]) -> list[str]:
    lines = [f"  {seconds:6.2f} CPU-s  thread {name}" for name, seconds in run.get("threads_cpu_seconds", {}).items()]
    return [
        *(["Threads of the forwarder in the last run:"] if lines else []),
        *lines,
        *filter(None, [run.get("profile")]),
    ]
