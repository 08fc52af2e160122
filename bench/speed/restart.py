"""`logbench restart`: how long nothing of a stream is stored while its receiver is killed or stopped, and restarted."""

from __future__ import annotations

import contextlib
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
from rich.console import Console

from bench.figures import report
from bench.lab.handover import handing_over
from bench.lab.load import Base, Load
from bench.lab.processes import StartFailed
from bench.lab.rig import Forwarder, Rig, Setup
from bench.lab.site import Program

MODE = "hybrid"
RECORDS_PER_SECOND = 1000
BASE_RECORDS = 20_000
POLL_SECONDS = 0.01
SETTLE_SECONDS = 3.0
"""Between two restarts: a link that has served for a while is reconnected at once."""
PATIENCE_SECONDS = 60.0
CHANGES = 5
"""Acknowledgements seen after the restart: the first ones may still be those of the receiver that has ended."""
ENDS: Mapping[str, Callable[[Program], object]] = {"SIGKILL": Program.kill, "SIGTERM": Program.stop}
_BATCH = '[batch]\nlinger = "5ms"\n'


@click.command(short_help="Measure the outage of a receiver's restart.")
@click.option("--rounds", type=click.IntRange(1), default=10, show_default=True, help="Restarts of each kind.")
@report.sink_option
@report.as_json_option
def restart(rounds: int, sink: str, as_json: bool) -> None:
    """How long no record of a stream is stored while its only receiver is restarted: by SIGKILL and by SIGTERM, with a
    socket of its own and with one that a service manager keeps.

    It is started again as soon as it has ended. Shown is the longest time between two acknowledgements, as the
    forwarder counts them, with 1,000 records a second.

    Takes about 5 seconds a restart.
    """
    rows: list[report.Row] = []
    with report.workplace(as_json) as (directory, console):
        base, _ = report.base_file(directory, console, BASE_RECORDS, seed=1)
        for kept in (False, True):
            with _rig(directory / f"rig{kept:d}", sink, kept=kept) as (rig, forwarder), _loaded(forwarder, base):
                for name in ENDS:
                    seconds = _outages(rig, forwarder, name, rounds, console)
                    rows.append({"signal": name, "socket": "kept" if kept else "its own", "seconds": seconds})
    if as_json:
        report.emit("restart", rows, sink=sink)
        return
    report.show(console, f"restarts of the receiver, {sink} sink, {rounds} of each kind", COLUMNS, rows)


COLUMNS: list[report.Column] = [
    ("by", lambda r: r["signal"]),
    ("socket", lambda r: r["socket"]),
    ("nothing stored, median", lambda r: f"{statistics.median(r['seconds']):.2f} s"),
    ("longest", lambda r: f"{max(r['seconds']):.2f} s"),
]


@contextlib.contextmanager
def _rig(directory: Path, sink: str, *, kept: bool) -> Iterator[tuple[Rig, Forwarder]]:
    """With a receiver whose socket is kept over restarts, or not."""
    with Rig(directory, sink=sink, modes=[MODE]) as rig, contextlib.ExitStack() as stack:
        if kept:
            host, port = rig.addresses[MODE].split(":")
            rig.receiver.stop()
            sock = stack.enter_context(socket.create_server((host, int(port)), backlog=128))
            program = rig.receiver
            program.descriptors = [sock.fileno()]
            program.argv[:] = handing_over(sock.fileno(), program.argv)
            rig.start_receiver()
        yield rig, stack.enter_context(rig.forwarder(Setup(mode=MODE, more=_BATCH)))


@contextlib.contextmanager
def _loaded(forwarder: Forwarder, base: Base) -> Iterator[None]:
    """Records come at a steady rate."""
    load = Load(base, forwarder.input(forwarder.originals[0]) / "http.log", RECORDS_PER_SECOND)
    load.start()
    try:
        yield
    finally:
        load.stop()


def _outages(rig: Rig, forwarder: Forwarder, name: str, rounds: int, console: Console) -> list[float]:
    """Seconds, for each of some restarts by this signal."""
    seconds = []
    forwarder.records()  # the first request takes longest: its server is imported
    for number in range(rounds):
        with console.status(f"{name} {number + 1} of {rounds}"):
            time.sleep(SETTLE_SECONDS)
            seconds.append(_outage(forwarder, rig, ENDS[name]))
    return seconds


def _outage(forwarder: Forwarder, rig: Rig, end: Callable[[Program], object]) -> float:
    """The longest time without an acknowledgement from before a receiver's end until its successor has sent some."""
    restarted = threading.Event()
    with ThreadPoolExecutor(1) as thread:
        longest = thread.submit(_longest_pause, forwarder, forwarder.records(), time.monotonic(), restarted)
        try:
            end(rig.receiver)
            rig.start_receiver()  # in this thread: a process ends with the thread that started it
        finally:
            restarted.set()  # else nobody would end the other thread
        return longest.result()


def _longest_pause(forwarder: Forwarder, count: int, since: float, restarted: threading.Event) -> float:
    longest, changes = 0.0, 0
    while changes < CHANGES:
        time.sleep(POLL_SECONDS)
        seen, now = forwarder.records(), time.monotonic()
        if seen != count:
            count, longest, since = seen, max(longest, now - since), now
            changes += restarted.is_set()
        elif now - since > PATIENCE_SECONDS:
            raise StartFailed(f"nothing was stored after a restart\n{forwarder.program.tail()}")
    return longest
