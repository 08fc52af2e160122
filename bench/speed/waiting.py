"""`logbench waiting`: what batches cost that wait for a receiver: memory, scrapes, and the time of a start."""

from __future__ import annotations

import contextlib
import time
import urllib.request
from pathlib import Path
from statistics import median
from typing import Any

import click

from bench.figures import report
from bench.figures.measure import Usage
from bench.lab import longspool
from bench.lab.processes import StartFailed, wait_until
from bench.lab.site import Site
from streams.telemetry.client import NotAnswered

SCRAPES = 20
START_SECONDS = 600.0
NO_RECEIVER = "localhost:1"
STREAM = """[source]
type = "file"
paths = ["quiet.log"]
[spool]
max_spool_bytes = "64GiB"
"""


@click.command(short_help="Measure memory, scrapes and start with millions of waiting batches.")
@click.option(
    "--batches",
    multiple=True,
    type=click.IntRange(0),
    default=(0, 1_000_000, 3_000_000),
    show_default=True,
    help="Number of waiting batches; can be given several times.",
)
@report.as_json_option
def waiting(batches: tuple[int, ...], as_json: bool) -> None:
    """Start a forwarder on a spool with so many small batches, and no receiver to send them to.

    Measures the time from exec until the stream is there, CPU seconds until then, resident memory, and how long
    /metrics and /api/v1/streams take (median of 20). A spool of a million batches takes about 150 MB of disk and
    10 s to make.
    """
    with report.workplace(as_json) as (directory, console):
        rows = []
        for count in batches:
            with console.status(f"{count:,} waiting batches"):
                rows.append(_measure(directory / str(count), count))
    if as_json:
        report.emit("waiting", rows)
        return
    columns: list[report.Column] = [
        ("waiting batches", lambda r: f"{r['batches']:,}"),
        ("start, s", lambda r: f"{r['start_seconds']:.2f}"),
        ("its CPU, s", lambda r: f"{r['start_cpu_seconds']:.2f}"),
        ("RSS, MB", lambda r: f"{r['rss_mb']:.0f}"),
        ("peak RSS, MB", lambda r: f"{r['peak_rss_mb']:.0f}"),
        ("/metrics, ms", lambda r: f"{r['metrics_ms']:.1f}"),
        ("/api/v1/streams, ms", lambda r: f"{r['api_ms']:.1f}"),
    ]
    report.show(console, "a quiet stream without a receiver", columns, rows)


def _measure(directory: Path, batches: int) -> dict[str, Any]:
    with Site(directory) as site:
        site.make_pki()
        site.write_forwarder([NO_RECEIVER])
        site.write_stream("quiet", STREAM)
        longspool.make(directory / "state" / "quiet.spool", batches)
        began = time.monotonic()
        site.start_forwarder()
        if not wait_until(lambda: _waits(site, batches), START_SECONDS):
            raise StartFailed(site.forwarder.tail())
        started, usage = time.monotonic() - began, Usage.of(site.forwarder.pid)
        scrapes = {path: [_seconds(site, path) for _ in range(SCRAPES)] for path in ("metrics", "api/v1/streams")}
        after = Usage.of(site.forwarder.pid)
    return {
        "batches": batches,
        "start_seconds": started,
        "start_cpu_seconds": usage.cpu_seconds,
        "rss_mb": after.rss_mb,
        "peak_rss_mb": after.peak_rss_mb,
        "metrics_ms": median(scrapes["metrics"]) * 1000,
        "api_ms": median(scrapes["api/v1/streams"]) * 1000,
    }


def _waits(site: Site, batches: int) -> bool:
    with contextlib.suppress(NotAnswered, KeyError):
        return bool(site.streams()["quiet"]["spool"]["batches"] == batches)
    return False


def _seconds(site: Site, path: str) -> float:
    began = time.monotonic()
    with urllib.request.urlopen(f"http://{site.admin_address}/{path}", timeout=60) as answer:
        answer.read()
    return time.monotonic() - began
