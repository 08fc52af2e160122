"""`logbench start`: what both programs cost before they do anything, and how soon the first record is stored."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from bench.figures import report
from bench.figures.measure import Usage
from bench.lab.processes import StartFailed
from bench.lab.rig import Rig
from bench.lab.site import Program, Site

IDLE_SECONDS = 2.0
"""Until memory is looked at."""
PATIENCE_SECONDS = 60.0
STREAM = '[source]\ntype = "file"\npaths = ["in.log"]\n'


@click.command(short_help="Measure the start of both programs.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="Starts; the median is shown.")
@report.sink_option
@report.as_json_option
def start(rounds: int, sink: str, as_json: bool) -> None:
    """CPU and time from the start of each program until it is of use, and its memory while it is idle.

    The receiver is of use when it listens, the forwarder when the first record of a file is stored. CPU is in steps of
    10 ms. Memory is resident MB, 2 s later.

    Takes about 5 seconds a round.
    """
    found: dict[str, list[dict[str, float]]] = {"receiver": [], "forwarder": []}
    with report.workplace(as_json) as (directory, console), Rig(directory, sink=sink) as rig:
        for number in range(rounds):
            with console.status(f"start {number + 1} of {rounds}"):
                rig.receiver.stop()
                found["receiver"].append(_started(rig.start_receiver, rig.receiver, lambda: True))
                found["forwarder"].append(_forwarder(rig, directory / f"start{number}"))
    rows = [
        {"process": name, **{key: statistics.median(run[key] for run in runs) for key in runs[0]}, "rounds": runs}
        for name, runs in found.items()
    ]
    if as_json:
        report.emit("start", rows, sink=sink)
        return
    report.show(console, f"start, {sink} sink, median of {rounds}", COLUMNS, rows)


COLUMNS: list[report.Column] = [
    ("process", lambda r: r["process"]),
    ("of use after", lambda r: f"{r['seconds']:.2f} s"),
    ("CPU until then", lambda r: f"{r['cpu_seconds']:.2f} s"),
    ("idle RSS, MB", lambda r: f"{r['rss_mb']:.0f}"),
]


def _forwarder(rig: Rig, directory: Path) -> dict[str, float]:
    """A forwarder with one record to send, until that is in the sink."""
    with Site(directory) as site:
        (directory / "pki").symlink_to(rig.site.directory.resolve() / "pki")
        (directory / "in.log").write_bytes(b'{"message":"first"}\n')
        name = directory.name
        site.write_forwarder(list(rig.addresses.values()))
        site.write_stream(name, STREAM)

        def is_stored() -> bool:
            return any(path.stat().st_size and path.read_bytes()[:17].strip(b"\0") for path in rig.segments(name))

        return _started(site.forwarder.start, site.forwarder, is_stored)


def _started(begin: Callable[[], Any], program: Program, is_of_use: Callable[[], bool]) -> dict[str, float]:
    """`begin` starts the program, and may wait itself."""
    began = time.monotonic()
    begin()
    while not is_of_use():
        if time.monotonic() > began + PATIENCE_SECONDS:
            raise StartFailed(f"nothing was stored\n{program.tail()}")
        time.sleep(0.002)
    seconds, usage = time.monotonic() - began, Usage.of(program.pid)
    time.sleep(IDLE_SECONDS)
    return {"seconds": seconds, "cpu_seconds": usage.cpu_seconds, "rss_mb": Usage.of(program.pid).rss_mb}
