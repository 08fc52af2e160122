"""`logbench idle`: what a forwarder costs a host on which nothing happens."""

from __future__ import annotations

import time

import click

from bench.figures import report
from bench.figures.measure import Usage
from bench.lab.generate import generate_http
from bench.lab.rig import Rig, Setup

SETTLE_SECONDS = 6.0
"""Longer than a forwarder keeps checking freshly written files more often."""


@click.command(short_help="Measure CPU and memory while nothing is written.")
@click.option("--streams", type=click.IntRange(1, 64), default=10, show_default=True, help="Number of streams.")
@click.option(
    "--files",
    type=click.IntRange(1, 10_000),
    default=100,
    show_default=True,
    help="Tailed files, all streams together.",
)
@click.option(
    "--seconds", type=click.FloatRange(1), default=30.0, show_default=True, help="Duration of the idle phase."
)
@report.sink_option
@report.as_json_option
def idle(streams: int, files: int, seconds: float, sink: str, as_json: bool) -> None:
    """CPU and memory of each process while files are tailed and links are open, but nothing is written.

    CPU is a share of one core, memory resident MB. Every file has been read to its end before; files are scanned at the
    default interval, and the admin address is not queried. The kernel counts CPU in steps of 10 ms, which in 30 s is
    0.03 % of a core.

    Takes --seconds plus about 20 seconds.
    """
    with (
        report.workplace(as_json) as (directory, console),
        Rig(directory, sink=sink) as rig,
        rig.forwarder(Setup(streams=streams, scan="1s")) as forwarder,
        console.status("letting it settle") as status,
    ):
        for number, record in enumerate(generate_http(files, 1)):
            place = forwarder.input(forwarder.originals[number % streams])
            (place / f"app{number}.log").write_bytes(record + b"\n")
        forwarder.wait_for(files // streams, 60)
        time.sleep(SETTLE_SECONDS)
        status.update(f"idle for {seconds:.0f} s")
        pids = rig.pids(forwarder)
        before, started = {name: Usage.of(pid) for name, pid in pids.items()}, time.monotonic()
        time.sleep(seconds)
        after, passed = {name: Usage.of(pid) for name, pid in pids.items()}, time.monotonic() - started
    rows = [
        {
            "process": name,
            "core_share": (after[name].cpu_seconds - before[name].cpu_seconds) / passed,
            "rss_mb": after[name].rss_mb,
        }
        for name in pids
    ]
    if as_json:
        report.emit("idle", rows, streams=streams, files=files, seconds=passed)
        return
    columns: list[report.Column] = [
        ("process", lambda r: r["process"]),
        ("share of a core", lambda r: f"{r['core_share']:.2%}"),
        ("RSS, MB", lambda r: f"{r['rss_mb']:.0f}"),
    ]
    report.show(console, f"{streams} idle streams, {files} tailed files, {seconds:.0f} s", columns, rows)
