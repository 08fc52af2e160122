"""`logbench peers PEER`: a file through another log forwarder and through logfwd into the same Kafka, in turns.

For both, wall clock and CPU count from the start of their processes, with the file already in place, to the last record
in Kafka. The broker is warm. With `--kill` one end is killed with SIGKILL midway and started again; then a reader that
shares no code with either looks for every record in Kafka.
"""

from __future__ import annotations

import compileall
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

import logfwd
import logreceiver
import streams
from bench.figures import report
from bench.figures.measure import Usage
from bench.lab.debian import unpack
from bench.lab.kafka import free_ports
from bench.lab.load import Base
from bench.lab.oracle import read_topic
from bench.lab.processes import StartFailed, wait_until
from bench.lab.rig import LEDGER, Rig
from bench.lab.site import Program, Site
from bench.speed.fluentbit import FluentBit
from bench.speed.fullspeed import between_limits
from bench.speed.latency import headers
from bench.speed.otelcol import OtelCollector
from bench.speed.peer import Peer
from bench.speed.rsyslog import PACKAGES, Rsyslog
from bench.speed.throughput import middle

LOOK_SECONDS = 0.05
QUIET_SECONDS = 10.0
SLOWEST_RECORDS_PER_SECOND = 2_000


class Ours(Peer):
    """A receiver and a forwarder with the spool on disk and defaults otherwise."""

    promise = "logfwd: spooled to disk before sending, hybrid post-quantum TLS, exactly once."

    def __init__(self, directory: Path, *, pki: Path, broker: str, topic: str) -> None:
        site = Site(directory)
        (directory / "pki").symlink_to(pki)
        address = f"127.0.0.1:{free_ports(1)[0]}"
        site.write_receiver(f'type = "kafka"\nbrokers = ["{broker}"]', listeners={address: '["hybrid"]'})
        site.write_forwarder([address])
        site.write_stream(topic, '[source]\ntype = "file"\npaths = ["in/*.log"]\n')
        super().__init__(directory)
        self.receiver, self.sender = site.receiver, site.forwarder


class Stored:
    """Counts the records in a topic's segments, from the headers of their batches."""

    def __init__(self, segments: Callable[[], Sequence[Path]]) -> None:
        self._segments = segments
        self._read: dict[Path, int] = {}
        self.records = 0

    def __call__(self) -> int:
        for path in self._segments():
            position = self._read.get(path, 0)
            for header in headers(path, position):
                self.records += header.record_count
                position += header.size
            self._read[path] = position
        return self.records


def carry(rig: Rig, peer: Peer, topic: str, base: Base, *, kill: str | None) -> dict[str, Any]:
    """Carry the base file once; raises StartFailed if it does not arrive."""
    base.copy(peer.input, 1)
    stored, broker = Stored(lambda: rig.segments(topic)), rig.kafka.brokers[0].process.pid
    before, started = Usage.of(broker), time.time()
    programs = {"sender": peer.sender, "receiver": peer.receiver}
    try:
        for program in reversed(programs.values()):
            program.start()
        if kill is not None:
            _arrives(stored, base.records // 2, programs)
            programs[kill].kill()
            programs[kill].start()
            return _losses(rig, stored, topic, peer)
        _arrives(stored, base.records, programs)
        usage = {name: Usage.of(program.pid) for name, program in programs.items()}
        seconds = rig.stored_at([topic]) - started
    finally:
        for program in programs.values():
            if program.running():
                program.stop()
    return {
        "records": base.records,
        "seconds": seconds,
        "records_per_second": base.records / seconds,
        "cpu_seconds": {name: each.cpu_seconds for name, each in usage.items()},
        "broker_cpu_seconds": Usage.of(broker).cpu_seconds - before.cpu_seconds,
        "peak_rss_mb": {name: each.peak_rss_mb for name, each in usage.items()},
        "stored_megabytes": sum(path.stat().st_size for path in rig.segments(topic)) / 1e6,
        **_losses(rig, stored, topic, peer),
    }


def _arrives(stored: Stored, records: int, programs: dict[str, Program]) -> None:
    limit_seconds = 60 + records / SLOWEST_RECORDS_PER_SECOND
    if not wait_until(lambda: stored() >= records, limit_seconds, every_seconds=LOOK_SECONDS):
        logs = "\n".join(program.tail() for program in programs.values())
        raise StartFailed(f"{stored()} of {records} records are in Kafka\n{logs}")


def _losses(rig: Rig, stored: Stored, topic: str, peer: Peer) -> dict[str, Any]:
    """Lost and repeated records, counted once nothing more has arrived for a while."""
    last = [stored(), time.monotonic()]

    def quiet() -> bool:
        if (now := stored()) != last[0]:
            last[:] = now, time.monotonic()
        return time.monotonic() - last[1] > QUIET_SECONDS

    if not wait_until(quiet, 600):
        raise StartFailed(f"records of {topic} still arrive after ten minutes")
    found = Counter(hash(peer.line_of(value)) for value in read_topic(rig.kafka.bootstrap, topic))
    with peer.input.open("rb") as lines:
        sent = Counter(hash(line.rstrip(b"\n")) for line in lines)
    return {"lost": (sent - found).total(), "repeated": (found - sent).total()}


TIMES: Sequence[report.Column] = (
    ("", lambda r: r["peer"]),
    ("wall clock with start-up, s", lambda r: f"{r['seconds']:.2f}"),
    ("records/s", lambda r: f"{r['records_per_second']:,.0f}"),
    ("sender CPU, s", lambda r: f"{r['cpu_seconds']['sender']:.2f}"),
    ("receiver CPU, s", lambda r: f"{r['cpu_seconds']['receiver']:.2f}"),
    ("CPU of both, s", lambda r: f"{sum(r['cpu_seconds'].values()):.2f}"),
    ("broker CPU, s", lambda r: f"{r['broker_cpu_seconds']:.2f}"),
    ("peak RSS sender / receiver, MB", lambda r: "{sender:.0f} / {receiver:.0f}".format(**r["peak_rss_mb"])),
    ("stored in Kafka, MB", lambda r: f"{r['stored_megabytes']:.0f}"),
)
LOSSES: Sequence[report.Column] = (
    ("lost, by round", lambda r: " / ".join(f"{run['lost']:,}" for run in r["rounds"])),
    ("repeated, by round", lambda r: " / ".join(f"{run['repeated']:,}" for run in r["rounds"])),
)


PEERS: dict[str, type[Rsyslog | OtelCollector | FluentBit]] = {
    "rsyslog": Rsyslog,
    "otelcol": OtelCollector,
    "fluent-bit": FluentBit,
}


@click.command(short_help="Compare cost and losses with another log forwarder.")
@click.argument("peer", type=click.Choice(list(PEERS)))
@click.option(
    "--bin",
    "binary",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The program of otelcol (such as otelcol-contrib) or fluent-bit.",
)
@click.option("--records", type=click.IntRange(1, 500_000), default=500_000, show_default=True, help="Records per run.")
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Runs of each program, in turns; the median is shown.",
)
@click.option(
    "--kill",
    type=click.Choice(["sender", "receiver"]),
    help="Kill this end with SIGKILL midway, then count lost and repeated records; no times are shown.",
)
@report.seed_option
@report.as_json_option
def peers(
    peer: str, binary: Path | None, records: int, rounds: int, kill: str | None, seed: int, as_json: bool
) -> None:
    """The same file through PEER and through logfwd into the same Kafka: time, CPU, memory and losses of both.

    Wall clock and CPU (in seconds) count from the start of the processes until the last record is in Kafka.

    rsyslog needs Debian or Ubuntu: its packages are fetched with `apt-get download` and unpacked into a scratch
    directory; no root, and nothing is installed. otelcol (the OpenTelemetry Collector) and fluent-bit need --bin.
    Takes a few minutes; each round waits until no more records arrive.
    """
    if (peer != "rsyslog") != (binary is not None):
        raise click.UsageError("otelcol and fluent-bit need --bin, their program; rsyslog is fetched")
    if peer == "rsyslog" and shutil.which("apt-get") is None:
        raise click.ClickException("rsyslog is fetched with apt-get, which is missing: this needs Debian or Ubuntu")
    for package in (logfwd, logreceiver, streams):  # start as installed programs do, with their bytecode
        compileall.compile_dir(Path(package.__file__ or "").parent, quiet=2)
    runs: dict[str, list[dict[str, Any]]] = {"logfwd": [], peer: []}
    with report.workplace(as_json) as (directory, console):
        with console.status(f"preparing {peer}"):
            program = unpack(PACKAGES, directory) if binary is None else binary.resolve()
        makers: dict[str, Callable[..., Peer]] = {"logfwd": Ours, peer: partial(PEERS[peer], program)}
        base, _ = report.base_file(directory, console, records, seed=seed)
        with Rig(directory / "rig", sink="kafka") as rig, between_limits(base) as limits:
            rig.kafka.create_topic(LEDGER)
            with console.status("warming up the broker"):
                _round(rig, Ours, base, "warm-up", kill=None)
            for number in range(rounds):
                for name, done in runs.items():
                    with console.status(f"round {number + 1} of {rounds}: {name}"):
                        done.append(_round(rig, makers[name], base, f"{name}-{number}", kill=kill))
    rows = [{**middle(done), "peer": name, "rounds": done} for name, done in runs.items()]
    if as_json:
        report.emit("peers", rows, limit_megabytes_per_second=limits, killed=kill)
        return
    title = f"{base.records:,} records, {base.size / 1e6:.0f} MB: file → TLS → Kafka, median of {rounds} rounds"
    columns = (TIMES[0], *LOSSES) if kill else (*TIMES, *LOSSES)
    notes = [Ours.promise, PEERS[peer].promise, report.limit_note(limits)]
    report.show(console, f"{title}{f', {kill} killed' if kill else ''}", columns, rows, notes, upright=True)


def _round(rig: Rig, make: Callable[..., Peer], base: Base, topic: str, *, kill: str | None) -> dict[str, Any]:
    rig.kafka.create_topic(topic)
    directory = rig.directory / topic
    peer = make(directory, pki=rig.site.directory.resolve() / "pki", broker=rig.kafka.bootstrap, topic=topic)
    run = carry(rig, peer, topic, base, kill=kill)
    shutil.rmtree(directory)
    return run
