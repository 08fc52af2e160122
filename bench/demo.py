"""`logbench demo`: streams with the same records side by side: a classical and a hybrid one, or one for each mode.

Creates a private CA, starts a receiver and a forwarder as an operator would, feeds them HTTP request records, reads the
stored records back, and says whether every record arrived once and in order.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from bench.figures import report
from bench.lab.generate import generate_http
from bench.lab.processes import StartFailed
from bench.lab.site import Site, command
from streams.security.modes import MODES

STREAMS = {"http": "classical", "pq-stream": "hybrid"}
"""The streams that it shows by default, and their modes."""
RECORDS = 20_000
FEED_SECONDS = 4.0
FEED_STEPS = 40
WATCHDOG_SECONDS = 120.0
EXTRA_HANDSHAKES = 20
SIDE_BY_SIDE = 3
MARK = ".logbench-demo"
"""A file in every directory that a demo made: only such a directory is deleted for the next one."""


@dataclass(frozen=True)
class Arrival:
    """What became of the records of one stream."""

    sent: int
    stored: int
    missing: int
    twice: int
    in_order: bool

    @property
    def complete(self) -> bool:
        return self.missing == 0 and self.twice == 0 and self.in_order and self.stored == self.sent


def compare(sent: list[bytes], stored: list[bytes]) -> Arrival:
    """Count missing and duplicate records; equal lines count as often as they were sent."""
    wanted, found = Counter(sent), Counter(stored)
    return Arrival(len(sent), len(stored), (wanted - found).total(), (found - wanted).total(), sent == stored)


def feed(path: Path, lines: list[bytes]) -> None:
    """Append the records to the log file in steps, as a busy server would."""
    step = max(len(lines) // FEED_STEPS, 1)
    with path.open("ab") as out:
        for start in range(0, len(lines), step):
            out.write(b"".join(line + b"\n" for line in lines[start : start + step]))
            out.flush()
            time.sleep(FEED_SECONDS / FEED_STEPS)


@contextlib.contextmanager
def _kafka(directory: Path) -> Iterator[Any]:
    from bench.lab.kafka import Kafka

    with Kafka(directory / "kafka") as kafka:
        yield kafka


def streams_of(modes: Sequence[str]) -> dict[str, str]:
    """A stream for each of these modes; every one after the first is a twin of the first."""
    if list(modes) == list(STREAMS.values()):
        return STREAMS
    return {f"http-{mode}" if number else "http": mode for number, mode in enumerate(modes)}


def lay_out(site: Site, sink: str, streams: Mapping[str, str]) -> None:
    """Write every file and start the receiver: each stream has a listener of its own, which serves its mode alone."""
    site.make_pki()
    site.write_receiver(sink, listeners=[("localhost:0", f'["{mode}"]') for mode in streams.values()])
    addresses = site.start_receiver(listeners=len(streams))
    site.write_forwarder(addresses[:1])
    original = next(iter(streams))
    for (name, mode), address in zip(streams.items(), addresses, strict=True):
        source = '[source]\ntype = "file"\npaths = ["http.log"]\n'
        rest = source if name == original else f'mirror_of = "{original}"\n'
        site.write_stream(name, f'security = "{mode}"\nreceivers = ["{address}"]\n{rest}')


def _handshakes(site: Site, streams: Mapping[str, str], addresses: dict[str, str]) -> dict[str, list[float]]:
    """A few more handshakes of each mode, in turn, so that the median is meaningful."""
    from bench.lab.newlinks import Turn, shake_hands

    turns = [Turn(name, mode, addresses[name]) for name, mode in streams.items()] * EXTRA_HANDSHAKES
    found = shake_hands(site.directory / "pki", turns)
    return {name: [facts.handshake_seconds for facts in each] for name, each in found.items()}


def _milliseconds(values: list[float]) -> str:
    if not values:
        return "–"
    p95 = statistics.quantiles(values, n=20)[-1] if len(values) > 1 else values[0]
    return f"{statistics.median(values) * 1e3:.2f} / {p95 * 1e3:.2f} ms"


def _batch_duration(row: report.Row) -> str:
    summary = row["batch_duration_seconds"]
    return f"{summary['median'] * 1e3:.2f} / {summary['p95'] * 1e3:.2f} ms" if summary["count"] else "–"


FIGURES: Sequence[report.Column] = (
    ("stream", lambda r: r["stream"]),
    ("configured mode", lambda r: r["mode"]),
    ("negotiated group", lambda r: (r["link"] or {}).get("group", "–")),
    ("authentication", lambda r: (r["link"] or {}).get("authentication", "–")),
    ("TLS version", lambda r: (r["link"] or {}).get("version", "–")),
    ("records sent", lambda r: str(r["arrival"].sent)),
    ("records stored", lambda r: str(r["arrival"].stored)),
    ("missing", lambda r: str(r["arrival"].missing)),
    ("duplicates", lambda r: str(r["arrival"].twice)),
    ("in order", lambda r: "yes" if r["arrival"].in_order else "NO"),
    (f"handshake, median / p95 of {EXTRA_HANDSHAKES}", lambda r: _milliseconds(r["handshakes"])),
    ("batch duration, median / p95", _batch_duration),
    ("batches", lambda r: str(r["batch_duration_seconds"]["count"])),
)


def _tables(
    arrivals: dict[str, Arrival], rows: dict[str, dict[str, Any]], handshakes: dict[str, list[float]]
) -> Iterator[Table]:
    """As many streams side by side as fit into a terminal."""
    found = [{**rows[name], "arrival": arrivals[name], "handshakes": handshakes[name]} for name in arrivals]
    title = f"The same records in {len(found)} security modes"
    if [row["mode"] for row in found] == list(STREAMS.values()):
        title = "The same records over classical and over hybrid post-quantum TLS"
    for start in range(0, len(found), SIDE_BY_SIDE):
        yield report.table("" if start else title, FIGURES, found[start : start + SIDE_BY_SIDE], upright=True)


def make_room(directory: Path) -> None:
    """An empty directory with the demo's mark; deletes what an earlier demo left there, and nothing else."""
    if directory.exists() and not (directory / MARK).exists() and (directory.is_file() or any(directory.iterdir())):
        raise StartFailed(f"{directory} has files that are not from a demo: delete it, or name another --directory")
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    (directory / MARK).touch()


def run_demo(
    directory: Path, *, sink: str, lines: list[bytes], console: Console, streams: Mapping[str, str] = STREAMS
) -> bool:
    """Run the whole demo; True if every record of every stream arrived once and in order."""
    make_room(directory)
    console.print(f"feeding {len(lines)} records within {FEED_SECONDS:.0f} s to each of {len(streams)} streams …")
    with contextlib.ExitStack() as stack:
        kafka = stack.enter_context(_kafka(directory)) if sink == "kafka" else None
        if kafka is None:
            toml = 'type = "log"\ndirectory = "log"'
        else:
            toml = f'type = "kafka"\nbrokers = ["{kafka.bootstrap}"]\ncreate_topics = true'
        site = stack.enter_context(Site(directory))
        lay_out(site, toml, streams)
        (directory / "http.log").touch()
        site.start_forwarder()
        started = time.monotonic()
        feed(directory / "http.log", lines)
        everything = site.wait_until_acknowledged(len(lines), list(streams), WATCHDOG_SECONDS - FEED_SECONDS)
        elapsed = time.monotonic() - started
        rows = site.streams()
        if not everything:
            console.print(f"[bold red]not everything was acknowledged within {WATCHDOG_SECONDS:.0f} s[/]")
        addresses = {name: rows[name]["link"]["receiver"] for name in streams if rows[name]["link"]}
        handshakes: dict[str, list[float]] = {name: [] for name in streams}
        if len(addresses) == len(streams):
            handshakes = _handshakes(site, streams, addresses)
        site.stop()
        arrivals = {name: compare(lines, _stored(site, kafka, name)) for name in streams}
        for table in _tables(arrivals, rows, handshakes):
            console.print(table)
        console.print(f"{len(lines)} records per stream in {elapsed:.1f} s, fed at the pace of a busy server")
        if unaudited := [mode for mode in streams.values() if MODES[mode].stack == "tls13"]:
            console.print(f"{' and '.join(unaudited)}: experimental and unaudited (docs/kemtls.md)")
        _show_where(console, directory, sink, list(streams)[-1])
    return everything and all(arrival.complete for arrival in arrivals.values())


def _stored(site: Site, kafka: Any, topic: str) -> list[bytes]:
    if kafka is not None:
        return list(kafka.consume(topic))
    from logreceiver.sinks.log.sink import read_records

    return [bytes(record.value or b"") for record in read_records(site.directory / "log", topic)]


def _show_where(console: Console, directory: Path, sink: str, stream: str) -> None:
    console.print(f"configs, logs and data are in {directory}")
    if sink == "log":
        program = os.path.relpath(command("logreceiver"))
        console.print(f"print the records: {program} cat {stream} -d {directory / 'log'}", soft_wrap=True)
    else:
        console.print("the demo's broker has stopped; logbench kafka runs one that stays", soft_wrap=True)


@click.command(short_help="Send the same records through several streams, and compare.")
@click.option(
    "--sink",
    type=click.Choice(["log", "kafka"]),
    default="log",
    show_default=True,
    help="log: the receiver's embedded log; kafka: a real broker, started for the demo.",
)
@click.option(
    "--modes",
    default=",".join(STREAMS.values()),
    show_default=True,
    type=report.Modes(),
    help="Security modes, separated by commas, or all: a stream and a listener for each.",
)
@click.option(
    "--input",
    "source",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="File of records to send, one per line, instead of generated ones.",
)
@click.option("--records", default=RECORDS, show_default=True, help="Records per stream, if they are generated.")
@click.option("--seed", default=1, show_default=True, help="Seed of the generated records.")
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    default=Path("demo-data"),
    show_default=True,
    help="Holds configs, logs and data afterwards; that of an earlier demo is deleted first.",
)
def demo(sink: str, modes: list[str], source: Path | None, records: int, seed: int, directory: Path) -> None:
    """Send the same records through a classical and a hybrid post-quantum stream, or in other modes, and compare them.

    Starts a receiver and a forwarder with a private CA, feeds them, and prints for each stream the negotiated TLS
    group, how the receiver was authenticated, the durations of handshakes and batches in ms, and how many records were
    stored, missing or duplicated.

    Takes about ten seconds, with Kafka half a minute. Exit code 0: every record arrived once and in order; 1: not.
    """
    lines = (
        source.read_bytes().splitlines() if source is not None else list(islice(generate_http(records, seed), records))
    )
    console = Console()
    try:
        complete = run_demo(directory, sink=sink, lines=lines, console=console, streams=streams_of(modes))
    except StartFailed as error:
        raise click.ClickException(str(error)) from error
    console.print(
        "[bold green]every record arrived once, in order[/]"
        if complete
        else "[bold red]NOT complete: records are missing, duplicated or out of order[/]"
    )
    sys.exit(0 if complete else 1)
