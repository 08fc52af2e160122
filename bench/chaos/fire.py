"""`logbench fire`: what peers that mean harm do to a receiver, and to a forwarder that uses it at the same time.

Before and after each kind of abuse the forwarder's stream runs alone; its batch durations with and without are compared
within one run, because the machine is never the same twice. The attackers are processes of a low priority (floods.py).
Peak memory is the kernel's (VmHWM), reset before each.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from bench.chaos.attacker import MODE
from bench.chaos.floods import FLOODS, IDENTITIES, PATIENCE_SECONDS
from bench.chaos.hostile import (
    BASE_RECORDS,
    BATCH,
    RECORDS_PER_SECOND,
    SETTLE_SECONDS,
    Neighbour,
    compared,
)
from bench.chaos.hostile import COLUMNS as OF_ABUSE
from bench.figures import report
from bench.figures.measure import Usage, percentile
from bench.figures.provenance import provenance
from bench.lab.load import Load
from bench.lab.processes import StartFailed, die_with_parent
from bench.lab.rig import Rig, Setup
from streams.security import pki
from streams.telemetry import client
from streams.telemetry.client import NotAnswered

HEALTH_SECONDS = 0.1
LOOK_SECONDS = 3.0
QUIET = "quiet"


class Health:
    """How long /healthz takes, asked ten times a second by a thread."""

    def __init__(self, admin: str) -> None:
        self._admin = admin
        self._found: list[float] = []
        threading.Thread(target=self._ask, daemon=True).start()

    def _ask(self) -> None:
        while True:
            started = time.perf_counter()
            try:
                client.ask(self._admin, "/healthz", seconds=LOOK_SECONDS)
            except NotAnswered:
                self._found.append(LOOK_SECONDS * 1e3)
            else:
                self._found.append((time.perf_counter() - started) * 1e3)
            time.sleep(HEALTH_SECONDS)

    def taken(self) -> list[float]:
        """Milliseconds of each answer since the last call."""
        found, self._found = self._found, []
        return found


def strike(name: str, rig: Rig, neighbour: Neighbour, health: Health, seconds: float) -> dict[str, Any]:
    """One kind of abuse for a while."""
    pid, keys = rig.receiver.pid, rig.site.directory / "pki"
    where = [rig.addresses[MODE], rig.receiver.admin_address(), str(keys)]
    program = [sys.executable, "-m", "bench.chaos.floods", name, *where, str(seconds)]
    attacker = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=die_with_parent)
    try:
        time.sleep(SETTLE_SECONDS)  # until it has started
        Path(f"/proc/{pid}/clear_refs").write_text("5")
        before = Usage.of(pid)
        health.taken()
        during = neighbour.durations(max(seconds - SETTLE_SECONDS, 1))
        answered = health.taken()
        out, errors = attacker.communicate(timeout=seconds + 2 * PATIENCE_SECONDS)
    finally:
        attacker.kill()
        attacker.wait()
    if attacker.returncode:
        raise StartFailed(f"{name}: {errors.decode()[-2000:]}")
    outcomes = json.loads(out)
    return {
        "flood": name,
        "title": FLOODS[name].title,
        "outcomes": outcomes,
        "unexpected": sorted(set(outcomes) - FLOODS[name].outcomes),
        "cpu_share": (Usage.of(pid).cpu_seconds - before.cpu_seconds) / seconds,
        "peak_rss_mb": Usage.of(pid).peak_rss_mb,
        "health_ms": {"p50": percentile(answered, 0.5), "worst": max(answered, default=0.0)},
        "during_ms": during,
    }


def judged(row: dict[str, Any], alone: Sequence[float]) -> dict[str, Any]:
    """A row with its ratio to the forwarder alone, and what is wrong with it."""
    faults = [f"{row['title']}: {', '.join(row['unexpected'])}"] if row["unexpected"] else []
    if not row["during_ms"]:
        faults.append(f"{row['title']}: nothing was acknowledged")
    return compared(row, alone) | {"faults": faults}


COLUMNS: Sequence[report.Column] = (
    *OF_ABUSE,
    ("/healthz p50 / worst, ms", lambda r: "{p50:.0f} / {worst:.0f}".format(**r["health_ms"])),
)


@click.command(short_help="Flood a receiver: other forwarders, health, memory.")
@click.option("--flood", "chosen", type=click.Choice(list(FLOODS)), multiple=True, help="Only this one; repeatable.")
@click.option("--seconds", type=click.FloatRange(3), default=8.0, show_default=True, help="Duration of each flood.")
@report.as_json_option
def fire(chosen: tuple[str, ...], seconds: float, as_json: bool) -> None:
    """PINGs, REPORTs, KeyUpdates, tiny, endless and overlong batches, runs, names, handshakes: one flood after another.

    The table shows what became of the attackers' links, the receiver's peak memory, the time of its /healthz, and the
    batch durations (from sealed to acknowledged) of a forwarder with an identity of its own, alone and meanwhile.
    Goals: its p99 at most doubles, /healthz takes less than 100 ms.

    Takes about four minutes. Exit code 1 if a link ends in another way than it should, or the forwarder stands still;
    the ratio depends on the machine, and is only shown.
    """
    rows: list[dict[str, Any]] = []
    with report.workplace(as_json) as (directory, console), Rig(directory / "rig", sink="log") as rig:
        authority = pki.Authority.load(rig.site.directory / "pki")
        for name in (f"{flood}-{number}" for flood in chosen or FLOODS for number in range(IDENTITIES)):
            out = authority.directory / name
            authority.issue(identities=[f"spiffe://demo/{name}"], hosts=[], out=out, days=30)
        base, _ = report.base_file(directory, console, BASE_RECORDS, seed=1)
        table = f'{BATCH}[source]\ntype = "file"\npaths = ["in/{QUIET}/*.log*"]\n'
        with rig.forwarder(Setup(tables=((QUIET, table),))) as forwarder:
            neighbour, health = Neighbour(forwarder), Health(rig.receiver.admin_address())
            load = Load(base, forwarder.input(QUIET) / "http.log", RECORDS_PER_SECOND)
            load.start()
            try:
                alone = neighbour.durations(seconds)
                base_rss_mb = Usage.of(rig.receiver.pid).rss_mb
                for name in chosen or FLOODS:
                    with console.status(FLOODS[name].title):
                        row = strike(name, rig, neighbour, health, seconds)
                        time.sleep(SETTLE_SECONDS)
                        after = neighbour.durations(seconds)
                    rows.append(judged(row, [*alone, *after]))
                    alone = after
            finally:
                load.stop()
    faults = [fault for row in rows for fault in row["faults"]]
    if as_json:
        report.emit("fire", rows, base_rss_mb=base_rss_mb, faults=faults, provenance=provenance(1))
    else:
        report.show(console, f"a receiver under fire; memory before {base_rss_mb:.0f} MB", COLUMNS, rows, faults)
    if faults:
        sys.exit(1)
