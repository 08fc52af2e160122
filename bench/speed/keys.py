"""`logbench keys`: what idempotency keys cost under a steady load, and whether memory and disk stay within bounds.

Each request has one record and a key of its own, which its transaction stores. The bytes written are the forwarder's,
by the kernel's account (proc(5), /proc/PID/io): all that it caused to be sent to the disk, the spool and its log.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import uvloop

from bench.figures import report
from bench.figures.measure import Sampler, percentile, profiled
from bench.figures.provenance import provenance
from bench.lab.keyed import Answered, Clients
from bench.lab.rig import Forwarder, Rig, Setup
from bench.speed.sustained import MEMORY, SMALL_LOG, memory
from streams.telemetry import client

STREAM = "keyed"
CONNECTIONS = 64
RECORD_BYTES = 200
WARM_UP_SECONDS = 3.0
ANSWER_SECONDS = 5.0


def written_bytes(pid: int) -> int:
    """What a process has caused to be written to disks so far."""
    lines = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(lines["write_bytes"])


def stage_ms(forwarder: Forwarder, stage: str) -> dict[float, float]:
    """How many batches took at most so many milliseconds for one stage so far."""
    text = client.ask(forwarder.site.admin_address, "/metrics", seconds=ANSWER_SECONDS) or b""
    counts: dict[float, float] = {}
    for line in text.decode().splitlines():
        if line.startswith("logfwd_batch_stage_seconds_bucket{") and f'stage="{stage}"' in line:
            most = line.partition('le="')[2].partition('"')[0]
            counts[float(most) * 1e3] = float(line.rpartition("} ")[2].split()[0])
    return counts


def share_within(before: dict[float, float], after: dict[float, float], share: float) -> float:
    """The bound of the histogram's bucket within which this share of what came in between lies."""
    counts = {most: after[most] - before.get(most, 0.0) for most in sorted(after)}
    total = max(counts.values(), default=0.0)
    return next((most for most, count in counts.items() if total and count >= share * total), float("nan"))


def one_run(
    rig: Rig, forwarder: Forwarder, *, rate: float, seconds: float, connections: int, profile: Path | None
) -> dict[str, Any]:
    """One load, with everything that is measured of it."""
    address = forwarder.program.wait_for("http listening")[-1]["address"]

    def load(seconds: float) -> Answered:
        clients = Clients(address, STREAM, connections=connections, record_bytes=RECORD_BYTES)
        return uvloop.run(clients.run(rate, seconds))

    load(WARM_UP_SECONDS)
    pid = forwarder.program.pid
    stages, written, batches = stage_ms(forwarder, "spool"), written_bytes(pid), time.perf_counter()
    with Sampler(rig.pids(forwarder)) as sampler, profiled(pid, profile):
        answered = load(seconds)
    passed = time.perf_counter() - batches
    later = stage_ms(forwarder, "spool")
    requests = len(answered.milliseconds)
    commits = max(later.values(), default=0.0) - max(stages.values(), default=0.0)
    return {
        "offered_per_second": rate,
        "requests": requests,
        "refused": answered.refused,
        "unsent": answered.unsent,
        "seconds": passed,
        "requests_per_second": answered.per_second,
        "answer_p50_ms": percentile(answered.milliseconds, 0.5),
        "answer_p99_ms": percentile(answered.milliseconds, 0.99),
        "answer_max_ms": max(answered.milliseconds, default=float("nan")),
        "commit_p99_within_ms": share_within(stages, later, 0.99),
        "requests_per_batch": requests / max(commits, 1),
        "written_bytes_per_request": (written_bytes(pid) - written) / max(requests, 1),
        "memory": memory(sampler.samples),
    }


COLUMNS: Sequence[report.Column] = (
    ("offered, requests/s", lambda r: f"{r['offered_per_second']:,.0f}"),
    ("answered 200", lambda r: f"{r['requests']:,}"),
    ("other / not sent in time", lambda r: f"{r['refused']:,} / {r['unsent']:,}"),
    ("requests/s", lambda r: f"{r['requests_per_second']:,.0f}"),
    (
        "answer p50 / p99 / max, ms",
        lambda r: f"{r['answer_p50_ms']:.1f} / {r['answer_p99_ms']:.1f} / {r['answer_max_ms']:.0f}",
    ),
    ("commit p99 within, ms", lambda r: f"{r['commit_p99_within_ms']:g}"),
    ("requests a batch", lambda r: f"{r['requests_per_batch']:.1f}"),
    ("written, KB/request", lambda r: f"{r['written_bytes_per_request'] / 1e3:.2f}"),
)


@click.command(short_help="Measure requests with idempotency keys under a steady load.")
@click.option(
    "--rate", type=click.FloatRange(1), default=1000.0, show_default=True, help="Requests a second, each with a key."
)
@click.option("--minutes", type=click.FloatRange(0.05), default=10.0, show_default=True, help="Duration of the load.")
@click.option(
    "--connections",
    type=click.IntRange(1, 1000),
    default=CONNECTIONS,
    show_default=True,
    help="Clients, each with one request at a time.",
)
@click.option(
    "--profile",
    type=click.Path(path_type=Path),
    help="Write a speedscope profile of the forwarder here (needs py-spy).",
)
@report.sink_option
@report.as_json_option
def keys(rate: float, minutes: float, connections: int, profile: Path | None, sink: str, as_json: bool) -> None:
    """One-record requests with a key each, at a rate that does not wait: do answers, memory and disk keep up?

    An answer's time counts from when its request was due, so a forwarder that is slower than the rate shows in it. A
    commit's time is that from a sealed batch until it is durable, by the bound of a bucket of
    `logfwd_batch_stage_seconds`. "written" is all that the forwarder caused to be written to the disk.

    A meaningful slope of the memory takes at least ten minutes.
    """
    with report.workplace(as_json) as (directory, console), Rig(directory, sink=sink, overrides=SMALL_LOG) as rig:
        table = '[source]\ntype = "http"\naddress = "127.0.0.1:0"\n'
        with rig.forwarder(Setup(tables=((STREAM, table),), input_bytes=0)) as forwarder, console.status("sending"):
            row = one_run(rig, forwarder, rate=rate, seconds=minutes * 60, connections=connections, profile=profile)
    if as_json:
        report.emit("keys", [row], sink=sink, provenance=provenance(None))
        return
    report.show(
        console, f"requests with keys over {connections} connections, into {sink}", COLUMNS, [row], upright=True
    )
    report.show(console, "memory", MEMORY, row["memory"])
