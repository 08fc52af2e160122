"""`logbench peers rsyslog`: the same records through rsyslog (RELP over TLS) into the same Kafka, in the same run.

rsyslog comes as Debian packages that are unpacked into a scratch directory; nothing is installed. Both ends are
rsyslog: file → omrelp with TLS → imrelp → omkafka with acks=all, idempotence and zstd. What differs from us in what is
promised is printed beside the figures.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from bench import report
from bench.fullspeed import between_limits, measure
from bench.latency import append_times
from bench.load import Base
from bench.measure import Usage, wait_until
from bench.rig import POLL_SECONDS, Rig, Setup
from bench.site import Program, StartFailed
from streams.recordbatch import HEADER_BYTES, iterate, parse_header

PACKAGES = (
    *("rsyslog", "rsyslog-relp", "rsyslog-kafka", "rsyslog-openssl"),
    *("librelp0", "libestr0", "libfastjson4", "liblognorm5", "librdkafka1"),
)
TOPIC = "rsyslog"
_TLS = (
    'tls="on" tls.caCert="{pki}/ca.pem" tls.myCert="{pki}/{name}.pem" tls.myPrivKey="{pki}/{name}.key" '
    'tls.authMode="certvalid"'
)
_SENDER = """\
global(workDirectory="{work}" maxMessageSize="64k")
main_queue(queue.type="LinkedList" queue.size="100000" queue.dequeueBatchSize="1024" queue.workerThreads="1")
module(load="imfile")
module(load="omrelp" tls.tlslib="openssl")
template(name="raw" type="string" string="<13>1 - - x - - - %msg%")
input(type="imfile" File="{input}" Tag="x")
action(type="omrelp" target="localhost" port="{port}" template="raw" windowSize="1024" {tls})
"""
_RECEIVER = """\
global(workDirectory="{work}" maxMessageSize="64k")
main_queue(queue.type="LinkedList" queue.size="100000" queue.dequeueBatchSize="1024" queue.workerThreads="1")
module(load="imrelp" tls.tlslib="openssl")
module(load="omkafka")
template(name="record" type="string" string="%msg%")
input(type="imrelp" port="{port}" maxDataSize="64k" {tls})
action(type="omkafka" broker=["{broker}"] topic="{topic}" template="record" resubmitOnFailure="on"
  confParam=["acks=all", "enable.idempotence=true", "compression.codec=zstd", "linger.ms=200", "batch.size=1000000"])
"""
PROMISES = (
    "logfwd: spooled on disk before it is sent, hybrid post-quantum TLS, exactly once. rsyslog: queues in memory (a "
    "crash loses them), TLS as OpenSSL's defaults have it, at least once from relay to relay.",
)
FIGURES: Sequence[report.Column] = (
    ("", lambda r: r["peer"]),
    ("wall, s", lambda r: f"{r['seconds']:.2f}"),
    ("records/s", lambda r: f"{r['records_per_second']:,.0f}"),
    ("sender CPU-s", lambda r: f"{r['cpu_seconds']['forwarder']:.2f}"),
    ("receiver CPU-s", lambda r: f"{r['cpu_seconds']['receiver']:.2f}"),
    ("broker CPU-s", lambda r: f"{r['cpu_seconds']['broker']:.2f}"),
    ("peak RSS sender / receiver, MB", lambda r: "{forwarder:.0f} / {receiver:.0f}".format(**r["peak_rss_mb"])),
    ("stored in Kafka, MB", lambda r: f"{r['stored_megabytes']:.0f}"),
)


def unpack(directory: Path) -> Path:
    """Fetch rsyslog's packages and unpack them; returns their root. StartFailed where that cannot be done."""
    root = directory / "root"
    try:
        _run(["apt-get", "download", *PACKAGES], directory)
        for package in directory.glob("*.deb"):
            _run(["dpkg", "-x", str(package), str(root)], directory)
    except (OSError, subprocess.SubprocessError) as error:
        told = (getattr(error, "stderr", b"") or b"").decode(errors="replace")
        raise StartFailed(f"rsyslog's Debian packages cannot be had here: {error}\n{told}") from error
    return root


def _run(argv: Sequence[str], directory: Path) -> None:
    subprocess.run(argv, cwd=directory, check=True, capture_output=True, timeout=300)


class Rsyslog:
    """Both ends, as child processes."""

    def __init__(self, root: Path, rig: Rig, directory: Path) -> None:
        directory.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.input = directory / "http.log"
        self._root = root
        texts = {"receiver": _RECEIVER, "forwarder": _SENDER}
        self.programs = {
            name: self._program(name, text, directory, port, rig.site.directory / "pki", rig.kafka.bootstrap)
            for name, text in texts.items()
        }

    def _program(self, name: str, text: str, directory: Path, port: int, pki: Path, broker: str) -> Program:
        work = directory / name
        work.mkdir()
        tls = _TLS.format(pki=pki.resolve(), name=name)
        config = work / "rsyslog.conf"
        config.write_text(text.format(work=work, input=self.input, port=port, tls=tls, broker=broker, topic=TOPIC))
        modules = next(self._root.glob("usr/lib/*/rsyslog"))
        program = self._root / "usr/sbin/rsyslogd"
        argv = [str(program), "-n", "-f", str(config), "-i", str(work / "pid"), "-M", str(modules)]
        libraries = os.pathsep.join([str(modules.parent), os.environ.get("LD_LIBRARY_PATH", "")]).rstrip(os.pathsep)
        return Program(argv, work / "log", {"LD_LIBRARY_PATH": libraries})

    def __enter__(self) -> Rsyslog:
        for program in self.programs.values():
            program.start()
        return self

    def __exit__(self, *_: object) -> None:
        for program in self.programs.values():
            if program.running():
                program.stop()


def _check_same(base: Base, segment: Path) -> None:
    """The first batch holds what was sent, byte for byte; only the first record tells the number of the copy."""
    with segment.open("rb") as file:
        header = parse_header(file.read(HEADER_BYTES))
        file.seek(0)
        stored = [record.value for record in iterate(file.read(header.size), max_bytes=64_000_000)]
    with base.path.open("rb") as lines:
        sent = [next(lines).rstrip(b"\n") for _ in stored]
    if stored[1:] != sent[1:]:
        raise StartFailed(f"rsyslog stored other records than were sent: {stored[1:2]} for {sent[1:2]}")


def through_rsyslog(rig: Rig, root: Path, base: Base) -> dict[str, Any]:
    """The base file once, from its appearance to the last write to the topic's segments."""
    rig.kafka.create_topic(TOPIC)
    staged = base.copy(rig.directory / "staged.log", 1)
    with Rsyslog(root, rig, rig.directory / "rsyslog") as rsyslog:
        time.sleep(2)  # its log is silent about being ready
        pids = {name: program.pid for name, program in rsyslog.programs.items()}
        pids["broker"] = rig.kafka.brokers[0].process.pid
        before, started = {name: Usage.of(pid) for name, pid in pids.items()}, time.time()
        staged.rename(rsyslog.input)

        def stored() -> int:
            return sum(count for path in rig.segments(TOPIC) for _, count in append_times(path))

        if not wait_until(lambda: stored() >= base.records, 60 + base.records / 2_000, every_seconds=POLL_SECONDS):
            logs = "\n".join(program.tail() for program in rsyslog.programs.values())
            raise StartFailed(f"rsyslog: {stored()} of {base.records} records are in Kafka\n{logs}")
        _check_same(base, rig.segments(TOPIC)[0])
        seconds, after = rig.stored_at([TOPIC]) - started, {name: Usage.of(pid) for name, pid in pids.items()}
    return {
        "records": stored(),
        "seconds": seconds,
        "records_per_second": base.records / seconds,
        "cpu_seconds": {name: after[name].cpu_seconds - before[name].cpu_seconds for name in pids},
        "peak_rss_mb": {name: after[name].peak_rss_mb for name in pids},
        "stored_megabytes": sum(path.stat().st_size for path in rig.segments(TOPIC)) / 1e6,
    }


@click.command()
@click.argument("peer", type=click.Choice(["rsyslog"]))
@click.option("--records", type=click.IntRange(1, 500_000), default=500_000, show_default=True)
@report.seed_option
@report.as_json_option
def peers(peer: str, records: int, seed: int, as_json: bool) -> None:
    """The same file through another forwarder into the same Kafka, beside ours: time, CPU, memory.

    rsyslog's packages are fetched with `apt-get download` and unpacked into a scratch directory: Debian or Ubuntu,
    no root, nothing is installed.
    """
    if shutil.which("apt-get") is None:
        raise click.ClickException("rsyslog is fetched with apt-get: this needs Debian or Ubuntu")
    with report.workplace(as_json) as (directory, console):
        with console.status("unpacking rsyslog"):
            root = unpack(directory)
        base, _ = report.base_file(directory, console, records, seed=seed)
        with Rig(directory / "rig", sink="kafka") as rig, between_limits(base) as limits:
            with console.status("logfwd"), rig.forwarder(Setup()) as forwarder:
                ours = measure(rig, forwarder, base, 1)
                ours["stored_megabytes"] = sum(path.stat().st_size for path in rig.segments(forwarder.names[0])) / 1e6
            with console.status(peer):
                theirs = through_rsyslog(rig, root, base)
    rows = [{"peer": "logfwd, logreceiver", **ours}, {"peer": "rsyslog, rsyslog", **theirs}]
    if as_json:
        report.emit("peers", rows, limit_megabytes_per_second=limits)
        return
    title = f"{base.records:,} records, {base.size / 1e6:.0f} MB: file → TLS → Kafka"
    report.show(console, title, FIGURES, rows, [*PROMISES, report.limit_note(limits)], upright=True)
