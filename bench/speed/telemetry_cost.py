"""The two sides of `logbench cost telemetry`: programs with metrics that are scraped, and the same without metrics.

Each side has a receiver and a forwarder of its own, since both programs have metrics. In its turn, the side with
metrics answers requests for /metrics and /api/v1/streams of both programs every second, as from a Prometheus and a live
page. The other side runs under `bench.lab.unobserved`. Both sides' forwarders are polled alike for progress, which
cancels out.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.lab import unobserved
from bench.lab.load import Base
from bench.lab.rig import Forwarder, Rig, Setup
from bench.speed.fullspeed import measure
from streams.telemetry import client

SCRAPE_SECONDS = 1.0
ANSWER_SECONDS = 10.0
PATHS = ("/metrics", "/api/v1/streams")
WITHOUT, WITH = "no telemetry", "telemetry"

GOAL = 0.05
FIGURE = "MB/s"

Turn = Callable[[], dict[str, Any]]


class Scraper:
    """Scrapes each address once a second inside `with scraper:`; the rhythm goes on in the next such block."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self.answers = 0
        self._addresses = addresses
        self._due_seconds = 0.0
        """When the next scrape is due, from the beginning of the block."""

    def _ask_in_time(self) -> None:
        started = time.monotonic()
        while not self._over.wait(max(self._due_seconds - (time.monotonic() - started), 0.0)):
            for address, path in itertools.product(self._addresses, PATHS):
                self.answers += bool(client.ask(address, path, seconds=ANSWER_SECONDS))
            self._due_seconds += SCRAPE_SECONDS
        self._due_seconds -= time.monotonic() - started

    def __enter__(self) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask_in_time, daemon=True)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


@contextlib.contextmanager
def sides(sink: str, setup: Setup, base: Base, copies: int, directory: Path) -> Iterator[Mapping[str, Turn]]:
    """Both sides by name, up inside the block; a turn is one run at full speed."""
    launchers: dict[str, Sequence[str]] = {WITHOUT: unobserved.LAUNCHER, WITH: ()}
    turns: dict[str, Turn] = {}
    with contextlib.ExitStack() as stack:
        for name, launcher in launchers.items():
            place = directory / name.replace(" ", "-")
            rig = stack.enter_context(Rig(place, sink=sink, modes=[setup.mode], launcher=launcher))
            forwarder = stack.enter_context(rig.forwarder(setup))
            programs = (rig.receiver, forwarder.program) if name == WITH else ()
            scraper = Scraper([program.admin_address() for program in programs])

            def turn(rig: Rig = rig, forwarder: Forwarder = forwarder, scraper: Scraper = scraper) -> dict[str, Any]:
                before = scraper.answers
                with scraper:
                    run = measure(rig, forwarder, base, copies)
                return {**run, "answers_scraped": scraper.answers - before}

            turns[name] = turn
        yield turns


def verdict(rows: Sequence[Mapping[str, Any]]) -> str:
    """Whether the upper bound of telemetry's cost in throughput meets the goal."""
    (ratio,) = [row["ratio"] for row in rows if row["figure"] == FIGURE]
    cost, low, high = (1 - ratio[bound] for bound in ("value", "high", "low"))
    kept = "met" if high <= GOAL else "not shown to be met"
    return f"cost in throughput: {cost:.1%} [{low:.1%} … {high:.1%}]; goal, upper bound at most {GOAL:.0%}: {kept}"
