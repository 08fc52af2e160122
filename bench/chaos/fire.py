"""`logbench fire`: what peers that mean harm do to a receiver, and to a forwarder that uses it at the same time.

Before and after each kind of abuse the forwarder's stream runs alone, and before it the same attackers flood a decoy:
its batch durations with and without are compared within one run, because the machine is never the same twice. Attackers
and decoy are processes of a low priority (floods.py). Peak memory is the kernel's (VmHWM), reset before each.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import click
from rich.console import Console

from bench.chaos.attacker import MODE
from bench.chaos.deceived import COLUMNS as OF_IMPOSTORS
from bench.chaos.deceived import deceive
from bench.chaos.floods import FLOODS, NICENESS, PATIENCE_SECONDS
from bench.chaos.hostile import (
    BASE_RECORDS,
    BATCH,
    RECORDS_PER_SECOND,
    SETTLE_SECONDS,
    Neighbour,
    compared,
)
from bench.chaos.hostile import COLUMNS as OF_ABUSE
from bench.chaos.impostors import IMPOSTORS
from bench.figures import report
from bench.figures.measure import Usage, percentile
from bench.figures.provenance import provenance
from bench.lab.load import Base, Load
from bench.lab.processes import StartFailed, die_with_parent
from bench.lab.rig import Rig, Setup
from logreceiver.config import Limits
from streams.security import pki
from streams.telemetry import client
from streams.telemetry.client import NotAnswered

HEALTH_SECONDS = 0.1
LOOK_SECONDS = 3.0
QUIET = "quiet"
BUDGET_MB = Limits().max_memory_bytes / 1e6
MOST_OF_BUDGET = 1.2


class Health:
    """How long /healthz takes, asked ten times a second by a thread inside the block."""

    def __init__(self, admin: str) -> None:
        self._admin = admin
        self._found: list[float] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._stopped.wait(HEALTH_SECONDS):
            started = time.perf_counter()
            try:
                client.ask(self._admin, "/healthz", seconds=LOOK_SECONDS)
            except NotAnswered:
                self._found.append(LOOK_SECONDS * 1e3)
            else:
                self._found.append((time.perf_counter() - started) * 1e3)

    def taken(self) -> list[float]:
        """Milliseconds of each answer since the last call."""
        found, self._found = self._found, []
        return found


class Attackers:
    """A flood's process; `with` ends it."""

    def __init__(self, name: str, address: str, admin: str, keys: Path, seconds: float) -> None:
        self._name, self._seconds = name, seconds
        program = [sys.executable, "-m", "bench.chaos.floods", name, address, admin, str(keys), str(seconds)]
        self._process = subprocess.Popen(
            program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=die_with_parent
        )
        time.sleep(SETTLE_SECONDS)  # until it has started

    def outcomes(self) -> dict[str, int]:
        """What became of their links; waits for the end."""
        out, errors = self._process.communicate(timeout=self._seconds + 2 * PATIENCE_SECONDS)
        if self._process.returncode:
            raise StartFailed(f"{self._name}: {errors.decode()[-2000:]}")
        found: dict[str, int] = json.loads(out)
        return found

    def __enter__(self) -> Attackers:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


@dataclass
class Range:
    """The receiver under fire, and what is looked at meanwhile."""

    rig: Rig
    neighbour: Neighbour
    health: Health
    decoy: Decoy
    seconds: float

    def strike(self, name: str) -> dict[str, Any]:
        """One kind of abuse for a while, at first of the decoy."""
        flood, pid, keys = FLOODS[name], self.rig.receiver.pid, self.rig.site.directory / "pki"
        seconds = max(self.seconds, flood.least_seconds)
        with Attackers(name, self.decoy.address, self.decoy.admin, keys, self.seconds) as attackers:
            decoyed = self.neighbour.durations(self.seconds - SETTLE_SECONDS)
            attackers.outcomes()
        Path(f"/proc/{pid}/clear_refs").write_text("5")
        before = Usage.of(pid)
        with Attackers(name, self.rig.addresses[MODE], self.rig.receiver.admin_address(), keys, seconds) as attackers:
            self.health.taken()
            during = self.neighbour.durations(seconds - SETTLE_SECONDS)
            answered = self.health.taken()
            outcomes = attackers.outcomes()
        after = Usage.of(pid)
        return {
            "flood": name,
            "title": flood.title,
            "outcomes": outcomes,
            "unexpected": sorted(set(outcomes) - flood.outcomes),
            "cpu_share": (after.cpu_seconds - before.cpu_seconds) / seconds,
            "peak_rss_mb": after.peak_rss_mb,
            "health_ms": {"p50": percentile(answered, 0.5), "worst": max(answered, default=0.0)},
            "decoyed_ms": decoyed,
            "during_ms": during,
        }


class Decoy:
    """Another receiver, of a low priority: what floods of it cost our forwarder is for want of CPUs alone."""

    def __init__(self, rig: Rig) -> None:
        self._program = rig.site.make_receiver("decoy")
        rig.site.write_receiver(
            'type = "log"\ndirectory = "decoy"', listeners={"127.0.0.1:0": f'["{MODE}"]'}, name="decoy"
        )
        self._program.argv[:0] = ["nice", "-n", str(NICENESS)]

    def __enter__(self) -> Decoy:
        self._program.start()
        self.address = str(self._program.wait_for("listening", seconds=2 * PATIENCE_SECONDS)[0]["address"])
        self.admin = self._program.admin_address()
        return self

    def __exit__(self, *_: object) -> None:
        self._program.kill()


def judged(row: dict[str, Any], alone: Sequence[float]) -> dict[str, Any]:
    """A row with its ratios to the forwarder alone and beside the decoy, and what is wrong with it."""
    faults = [f"{row['title']}: {', '.join(row['unexpected'])}"] if row["unexpected"] else []
    if not row["during_ms"]:
        faults.append(f"{row['title']}: nothing was acknowledged")
    decoyed = percentile(row.pop("decoyed_ms"), 0.99)
    found = compared(row, alone)
    found["p99_ms"]["decoy"] = decoyed
    return found | {"decoy_ratio": found["p99_ms"]["during"] / decoyed if decoyed else math.nan, "faults": faults}


def memory_fault(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is wrong with the memory that unfinished batches took, if both floods of 1990 links are there."""
    peaks = {row["flood"]: row["peak_rss_mb"] for row in rows}
    if not {"crowd", "crowd-unfinished"} <= set(peaks):
        return []
    most = peaks["crowd"] + BUDGET_MB * MOST_OF_BUDGET
    found = peaks["crowd-unfinished"]
    return [f"unfinished batches took {found:.0f} MB, not {most:.0f} MB"] if found > most else []


COLUMNS: Sequence[report.Column] = (
    *OF_ABUSE[:-2],
    ("p99 alone / decoy / now, ms", lambda r: "{alone:.1f} / {decoy:.1f} / {during:.1f}".format(**r["p99_ms"])),
    ("ratio to alone / decoy", lambda r: f"{r['ratio']:.2f} / {r['decoy_ratio']:.2f}"),
    ("/healthz p50 / worst, ms", lambda r: "{p50:.0f} / {worst:.0f}".format(**r["health_ms"])),
)


@click.command(short_help="Flood a receiver: other forwarders, health, memory.")
@click.option("--flood", "floods", type=click.Choice(list(FLOODS)), multiple=True, help="Only this one; repeatable.")
@click.option(
    "--impostor", "impostors", type=click.Choice(list(IMPOSTORS)), multiple=True, help="Only this one; repeatable."
)
@click.option("--seconds", type=click.FloatRange(3), default=8.0, show_default=True, help="Duration of each.")
@report.as_json_option
def fire(floods: tuple[str, ...], impostors: tuple[str, ...], seconds: float, as_json: bool) -> None:
    """PINGs, REPORTs, KeyUpdates, tiny, endless and overlong batches, runs, names, handshakes: one flood after another.

    The table shows what became of the attackers' links, the receiver's peak memory, the time of its /healthz, and the
    batch durations (from sealed to acknowledged) of a forwarder with an identity of its own: alone, while the same
    attackers flood another receiver of a low priority (the decoy: what the machine has no CPU left for), and now.
    Goals: its p99 at most doubles, /healthz takes less than 100 ms. `crowd-unfinished` may take the memory of `crowd`,
    the budget of 256 MiB and a fifth more.

    A second table shows a fresh forwarder at each of several receivers that mean harm (impostors): how often it makes
    links, how much it logs, its memory, and how soon it ends when it is told to.

    Takes about ten minutes. Exit code 1 if a link ends in another way than it should, a forwarder stands still, does
    not end in time or takes too much memory; the ratios depend on the machine, and are only shown.
    """
    if not floods and not impostors:
        floods, impostors = tuple(FLOODS), tuple(IMPOSTORS)
    with report.workplace(as_json) as (directory, console), Rig(directory / "rig", sink="log") as rig:
        authority = pki.Authority.load(rig.site.directory / "pki")
        for flood in floods:
            for number in range(FLOODS[flood].identities):
                out, identity = authority.directory / f"{flood}-{number}", f"spiffe://demo/{flood}-{number}"
                authority.issue(identities=[identity], hosts=[], out=out, days=30)
        base, _ = report.base_file(directory, console, BASE_RECORDS, seed=1)
        rows, base_rss_mb = _under_fire(floods, rig, base, seconds, console) if floods else ([], 0.0)
        deceived = []
        for name in impostors:
            with console.status(IMPOSTORS[name].title):
                deceived.append(deceive(name, rig, base, seconds))
    faults = [fault for row in (*rows, *deceived) for fault in row["faults"]] + memory_fault(rows)
    if as_json:
        report.emit("fire", rows, deceived=deceived, base_rss_mb=base_rss_mb, faults=faults, provenance=provenance(1))
    else:
        if rows:
            report.show(console, f"a receiver under fire; memory before {base_rss_mb:.0f} MB", COLUMNS, rows)
        report.show(console, "forwarders at receivers that mean harm", OF_IMPOSTORS, deceived, faults)
    if faults:
        sys.exit(1)


def _under_fire(
    floods: Sequence[str], rig: Rig, base: Base, seconds: float, console: Console
) -> tuple[list[dict[str, Any]], float]:
    """A row for each flood; and the receiver's memory in MB before them."""
    rows: list[dict[str, Any]] = []
    table = f'{BATCH}[source]\ntype = "file"\npaths = ["in/{QUIET}/*.log*"]\n'
    with (
        rig.forwarder(Setup(tables=((QUIET, table),))) as forwarder,
        Decoy(rig) as decoy,
        Health(rig.receiver.admin_address()) as health,
    ):
        neighbour = Neighbour(forwarder)
        place = Range(rig, neighbour, health, decoy, seconds)
        load = Load(base, forwarder.input(QUIET) / "http.log", RECORDS_PER_SECOND)
        load.start()
        try:
            alone = neighbour.durations(seconds)
            base_rss_mb = Usage.of(rig.receiver.pid).rss_mb
            for name in floods:
                with console.status(FLOODS[name].title):
                    row = place.strike(name)
                    time.sleep(SETTLE_SECONDS)
                    after = neighbour.durations(seconds)
                rows.append(judged(row, [*alone, *after]))
                alone = after
        finally:
            load.stop()
    return rows, base_rss_mb
