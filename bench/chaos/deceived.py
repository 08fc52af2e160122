"""A forwarder that uses a receiver which means harm (impostors.py): its memory, its new links, its end."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.chaos.attacker import MODE
from bench.chaos.floods import PATIENCE_SECONDS
from bench.chaos.impostors import IMPOSTORS
from bench.figures import report
from bench.figures.measure import Usage
from bench.lab.load import Base, Load
from bench.lab.processes import StartFailed, die_with_parent
from bench.lab.rig import Rig, Setup

RECORDS_PER_SECOND = 500
GRACE_SECONDS = 10.0
"""What a forwarder gives its streams at its end, as it is configured here: the default."""
MOST_OVER_SECONDS = 2.0
MOST_GROWN_MB = 80.0
"""A link may hold its window, a message of 16 MiB, and as much again while that is taken apart."""
LINKS_AT_FIRST = 10.0
LINKS_PER_SECOND = 0.2
"""A forwarder backs off: after some links it makes one in 5 to 10 s."""


class _Impostor:
    """Its process; `with` ends it."""

    def __init__(self, name: str, keys: Path) -> None:
        program = [sys.executable, "-m", "bench.chaos.impostors", name, str(keys)]
        self._process = subprocess.Popen(program, stdout=subprocess.PIPE, preexec_fn=die_with_parent)
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().decode().strip()
        if not self.address:
            raise StartFailed(f"{name} has not started")

    def links(self) -> int:
        """How many there were; it ends."""
        self._process.terminate()
        out, _ = self._process.communicate(timeout=PATIENCE_SECONDS)
        return int(out)

    def __enter__(self) -> _Impostor:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def deceive(name: str, rig: Rig, base: Base, seconds: float) -> dict[str, Any]:
    """A fresh forwarder that uses one of them for a while, and is then told to stop."""
    with _Impostor(name, rig.site.directory / "pki") as impostor:
        own, rig.addresses[MODE] = rig.addresses[MODE], impostor.address
        try:
            with rig.forwarder(Setup(mode=MODE)) as forwarder:
                program = forwarder.program
                before = Usage.of(program.pid)
                load = Load(base, forwarder.input(forwarder.names[0]) / "http.log", RECORDS_PER_SECOND)
                load.start()
                time.sleep(seconds)
                load.stop()
                after, lines = Usage.of(program.pid), sum(1 for _ in program.events())
                started = time.monotonic()
                program.stop(GRACE_SECONDS + PATIENCE_SECONDS)
                stop_seconds = time.monotonic() - started
        finally:
            rig.addresses[MODE] = own
        links = impostor.links()
    return judged(
        {
            "impostor": name,
            "title": IMPOSTORS[name].title,
            "links": links,
            "most_links": LINKS_AT_FIRST + seconds * LINKS_PER_SECOND,
            "lines_per_second": lines / seconds,
            "cpu_share": (after.cpu_seconds - before.cpu_seconds) / seconds,
            "rss_mb": before.rss_mb,
            "peak_rss_mb": after.peak_rss_mb,
            "stop_seconds": stop_seconds,
        }
    )


def judged(row: dict[str, Any]) -> dict[str, Any]:
    """A row with what is wrong with it."""
    title, faults = row["title"], []
    if row["peak_rss_mb"] > row["rss_mb"] + MOST_GROWN_MB:
        faults.append(f"{title}: the forwarder's memory grew to {row['peak_rss_mb']:.0f} MB")
    if row["links"] > row["most_links"]:
        faults.append(f"{title}: {row['links']} links")
    if row["stop_seconds"] > GRACE_SECONDS + MOST_OVER_SECONDS:
        faults.append(f"{title}: the forwarder took {row['stop_seconds']:.1f} s to stop")
    return row | {"faults": faults}


COLUMNS: Sequence[report.Column] = (
    ("receiver", lambda r: r["title"]),
    ("links", lambda r: f"{r['links']}"),
    ("lines a second", lambda r: f"{r['lines_per_second']:.1f}"),
    ("cores", lambda r: f"{r['cpu_share']:.2f}"),
    ("RSS before / peak, MB", lambda r: f"{r['rss_mb']:.0f} / {r['peak_rss_mb']:.0f}"),
    ("end after SIGTERM, s", lambda r: f"{r['stop_seconds']:.1f}"),
)
