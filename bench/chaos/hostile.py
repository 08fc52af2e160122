"""`logbench hostile`: what clients that mean harm do to a forwarder, and to the stream next to theirs.

One forwarder has a stream for each listener, and one that reads a file at a steady rate. Before and after each kind of
abuse that stream runs alone; its batch durations with and without are compared within one run, because the machine is
never the same twice. The attackers are processes of a low priority (attacks.py). Peak memory is the kernel's (VmHWM),
reset before each.
"""

from __future__ import annotations

import contextlib
import json
import math
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from bench.chaos.attacks import ATTACKS, Attack
from bench.figures import report
from bench.figures.measure import Usage, percentile
from bench.figures.provenance import provenance
from bench.lab import adminclient
from bench.lab.load import Load
from bench.lab.processes import StartFailed, die_with_parent
from bench.lab.rig import Forwarder, Rig, Setup
from streams.telemetry.client import NotAnswered

QUIET = "quiet"
RECORDS_PER_SECOND = 500
BASE_RECORDS = 20_000
MOST_GROWN_MB = 250.0
"""What abuse may add to the forwarder's memory: requests and messages may hold 64 MiB, in several forms at a time."""
START_SECONDS = 60.0
SETTLE_SECONDS = 1.0
MOST_ATTEMPTS = 6

BATCH = '[batch]\nlinger = "20ms"\n'
TABLES = {
    QUIET: f'{BATCH}[source]\ntype = "file"\npaths = ["in/{QUIET}/*.log*"]\n',
    "web": '[source]\ntype = "http"\naddress = "127.0.0.1:0"\nheader = "2s"\nbody = "3s"\n',
    "sys": '[source]\ntype = "syslog"\ntcp = ["127.0.0.1:0"]\nudp = ["127.0.0.1:0"]\nunix = ["{directory}/log"]\n'
    'message = "2s"\n',
}


class Neighbour:
    """The stream that has nothing to do with any of it."""

    def __init__(self, forwarder: Forwarder) -> None:
        self._admin = forwarder.site.admin_address
        self._seen = 0
        self.unanswered = 0
        """Questions to the admin address without an answer in time."""

    def durations(self, seconds: float = 0.0) -> list[float]:
        """Milliseconds from sealed to acknowledged of each batch in this time, or since the last call."""
        if seconds:
            self.durations()
            time.sleep(seconds)
        for _ in range(MOST_ATTEMPTS):
            with contextlib.suppress(NotAnswered):
                self._seen, found = adminclient.batch_durations(self._admin, QUIET, self._seen)
                return [each * 1e3 for each in found]
            self.unanswered += 1
        raise StartFailed("the forwarder's admin address does not answer any more")


def addresses(forwarder: Forwarder) -> dict[str, str]:
    """Where each listener is."""
    (http,) = forwarder.program.wait_for("http listening")
    found = forwarder.program.wait_for("syslog listening", times=3)
    return {"http": http["address"]} | {event["transport"]: event["address"] for event in found}


def strike(attack: Attack, name: str, address: str, neighbour: Neighbour, pid: int, seconds: float) -> dict[str, Any]:
    """One kind of abuse for a while."""
    program = [sys.executable, "-m", "bench.chaos.attacks", name, address, str(seconds)]
    attacker = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=die_with_parent)
    try:
        time.sleep(SETTLE_SECONDS)  # until it has started
        Path(f"/proc/{pid}/clear_refs").write_text("5")
        before = Usage.of(pid)
        during = neighbour.durations(max(seconds - SETTLE_SECONDS, 1))
        out, errors = attacker.communicate(timeout=seconds + START_SECONDS)
    finally:
        attacker.kill()
        attacker.wait()
    if attacker.returncode:
        raise StartFailed(f"{name}: {errors.decode()[-2000:]}")
    outcomes = json.loads(out)
    return {
        "attack": name,
        "title": attack.title,
        "outcomes": outcomes,
        "unexpected": sorted(set(outcomes) - attack.outcomes),
        "cpu_share": (Usage.of(pid).cpu_seconds - before.cpu_seconds) / seconds,
        "peak_rss_mb": Usage.of(pid).peak_rss_mb,
        "during_ms": during,
    }


def judged(row: dict[str, Any], alone: Sequence[float], base_rss_mb: float) -> dict[str, Any]:
    """A row with its ratio to the neighbour alone, and what is wrong with it."""
    faults = [f"{row['title']}: answered {', '.join(row['unexpected'])}"] if row["unexpected"] else []
    if row["peak_rss_mb"] > base_rss_mb + MOST_GROWN_MB:
        faults.append(f"{row['title']}: the forwarder's memory grew to {row['peak_rss_mb']:.0f} MB")
    return compared(row, alone) | {"faults": faults}


def compared(row: dict[str, Any], alone: Sequence[float]) -> dict[str, Any]:
    """A row with the neighbour's batches meanwhile (its `during_ms`) beside those alone, in milliseconds."""
    during = row.pop("during_ms")
    p99 = {"alone": percentile(alone, 0.99), "during": percentile(during, 0.99)}
    return {
        **row,
        "batches": {"alone": len(alone), "during": len(during)},
        "p50_ms": {"alone": percentile(alone, 0.5), "during": percentile(during, 0.5)},
        "p99_ms": p99,
        "ratio": p99["during"] / p99["alone"] if p99["alone"] else math.nan,
    }


def _outcomes(row: report.Row) -> str:
    return ", ".join(f"{count:,} × {outcome}" for outcome, count in sorted(row["outcomes"].items()))


COLUMNS: Sequence[report.Column] = (
    ("abuse", lambda r: r["title"]),
    ("what became of it", _outcomes),
    ("peak RSS, MB", lambda r: f"{r['peak_rss_mb']:.0f}"),
    ("cores", lambda r: f"{r['cpu_share']:.2f}"),
    ("p50 alone / now, ms", lambda r: "{alone:.1f} / {during:.1f}".format(**r["p50_ms"])),
    ("p99 alone / now, ms", lambda r: "{alone:.1f} / {during:.1f}".format(**r["p99_ms"])),
    ("ratio", lambda r: f"{r['ratio']:.2f}"),
)


@click.command(short_help="Abuse each listener: answers, memory, other streams.")
@click.option(
    "--attack", "chosen", type=click.Choice(list(ATTACKS)), multiple=True, help="Only this one; repeat it for several."
)
@click.option("--seconds", type=click.FloatRange(3), default=8.0, show_default=True, help="Duration of each attack.")
@report.as_json_option
def hostile(chosen: tuple[str, ...], seconds: float, as_json: bool) -> None:
    """Oversized, compressed, nested, slow, garbled and far too many requests and messages, one kind after the other.

    The table shows what became of the attackers' connections, the forwarder's peak memory, and the batch durations
    (from sealed to acknowledged) of a stream next to theirs, alone and meanwhile. Goal: its p99 at most doubles.

    Takes about five minutes. Exit code 1 if an answer is not what docs/inputs.md says, or the memory grows by more than
    250 MB; the ratio depends on the machine, and is only shown.
    """
    rows: list[dict[str, Any]] = []
    with report.workplace(as_json) as (directory, console), Rig(directory / "rig", sink="log") as rig:
        base, _ = report.base_file(directory, console, BASE_RECORDS, seed=1)
        tables = tuple((name, toml.replace("{directory}", str(directory))) for name, toml in TABLES.items())
        with rig.forwarder(Setup(tables=tables)) as forwarder:
            found, neighbour, pid = addresses(forwarder), Neighbour(forwarder), forwarder.program.pid
            load = Load(base, forwarder.input(QUIET) / "http.log", RECORDS_PER_SECOND)
            load.start()
            try:
                alone = neighbour.durations(seconds)
                base_rss_mb = Usage.of(pid).rss_mb
                for name in chosen or ATTACKS:
                    with console.status(ATTACKS[name].title):
                        row = strike(ATTACKS[name], name, found[ATTACKS[name].listener], neighbour, pid, seconds)
                        time.sleep(SETTLE_SECONDS)
                        after = neighbour.durations(seconds)
                    rows.append(judged(row, [*alone, *after], base_rss_mb))
                    alone = after
            finally:
                load.stop()
    faults = [fault for row in rows for fault in row["faults"]]
    if as_json:
        report.emit("hostile", rows, base_rss_mb=base_rss_mb, faults=faults, provenance=provenance(1))
    else:
        report.show(console, f"hostile clients; memory before them {base_rss_mb:.0f} MB", COLUMNS, rows, faults)
    if faults:
        sys.exit(1)
