"""Kafka is stopped, then killed, under full input of every source: the forwarder's memory stays flat, each client is
told in its protocol's words (429, a socket or a pipe that is not read, datagrams dropped and counted), and once Kafka
is back, everything that was taken is there once."""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from bench.lab.kafka import Kafka, free_ports
from bench.lab.oracle import read_topic
from bench.lab.processes import wait_until
from bench.lab.site import Site
from streams.config.units import MIB
from streams.telemetry.client import NotAnswered
from tests.integration.test_http_under_stress import Sender
from tests.integration.test_http_under_stress import sending as posting
from tests.support.impatient import make_impatient
from tests.support.kafka import UP_SOONER
from tests.support.patience import PATIENCE_SECONDS
from tests.support.syslog_clients import counted
from tests.support.to_kafka import rss_bytes, start, syslog_source

pytestmark = [pytest.mark.kafka, pytest.mark.slow]
SPOOL = 'codec = "none"\n[spool]\nmax_spool_bytes = "16MiB"\n'
STREAMS = ("file", "stdin", "web", "connections", "datagrams")
PADDING = "x" * 4000
LINES = 16_000
"""What the file and standard input hold: more than fits into a spool."""
LOOKS, EVERY_SECONDS = 20, 0.1


class Pusher(threading.Thread):
    """Sends one message after the other, as fast as it is taken, until it is told to stop."""

    def __init__(self, send: Callable[[int], object], *, limit: int = 1 << 60, pause_seconds: float = 0.0) -> None:
        super().__init__(daemon=True)
        self._send, self._limit, self._pause_seconds = send, limit, pause_seconds
        self._stop_asked = threading.Event()
        self.sent, self.slowest_seconds = 0, 0.0

    def run(self) -> None:
        while self.sent < self._limit and not self._stop_asked.is_set():
            begun = time.monotonic()
            self._send(self.sent)
            self.sent += 1
            self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - begun)
            if self._pause_seconds and self.sent % 10 == 0:
                time.sleep(self._pause_seconds)

    def stop(self) -> int:
        """The number of messages, all of them sent."""
        self._stop_asked.set()
        self.join(120)
        assert not self.is_alive()
        return self.sent


def message(app: str, number: int) -> bytes:
    return f"<13>1 - - {app} - - - {number} {PADDING}".encode()


def line(number: int) -> bytes:
    return f'{{"n":{number},"padding":"{PADDING}"}}\n'.encode()


class Pressure:
    """A forwarder with every kind of source, and clients that send more than it can pass on."""

    def __init__(self, site: Site, kafka: Kafka) -> None:
        self.site, self._kafka = site, kafka
        self._http, self._tcp, self._tls, self._udp = free_ports(4)
        self._unix, self._fifo = site.directory / "log.sock", site.directory / "stdin"
        os.mkfifo(self._fifo)
        (site.directory / "in.log").write_bytes(b"".join(map(line, range(LINES))))
        make_impatient(site.forwarder)
        site.forwarder.argv[:0] = ["sh", "-c", f'exec "$@" < {self._fifo}', "sh"]
        self.web = [Sender(f"127.0.0.1:{self._http}", "web", n, n == 0, insists=False, sizes=(3000,)) for n in range(2)]
        self._pipe = os.open(self._fifo, os.O_RDWR)  # so that neither end waits for the other to be opened
        start(site, kafka, {name: SPOOL + source for name, source in self._sources().items()})
        site.forwarder.wait_for("http listening")
        site.forwarder.wait_for("syslog listening", times=4)

    def _sources(self) -> dict[str, str]:
        buffer = 'max_buffer_bytes = "4MiB"'
        local = "127.0.0.1"
        return {
            "file": '[source]\ntype = "file"\npaths = ["in.log"]\n',
            "stdin": '[source]\ntype = "stdin"\n',
            "web": f'[source]\ntype = "http"\naddress = "{local}:{self._http}"\n',
            "connections": syslog_source(tcp=f"{local}:{self._tcp}", tcp_tls=f"localhost:{self._tls}", more=buffer),
            "datagrams": syslog_source(udp=f"{local}:{self._udp}", unix=self._unix, more=buffer),
        }

    @contextmanager
    def pushers(self) -> Iterator[dict[str, Pusher]]:
        """All clients, sending."""
        with ExitStack() as stack:
            tcp = stack.enter_context(socket.create_connection(("127.0.0.1", self._tcp)))
            tls = stack.enter_context(self._tls_connection())
            udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            udp.connect(("127.0.0.1", self._udp))
            unix = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            unix.connect(str(self._unix))
            stack.enter_context(posting(*self.web))
            pushers = {
                "stdin": Pusher(self._write, limit=LINES),
                "tcp": Pusher(lambda n: tcp.sendall(counted([message("tcp", n)]))),
                "tls": Pusher(lambda n: tls.sendall(counted([message("tls", n)]))),
                "udp": Pusher(lambda n: udp.send(message("udp", n)), pause_seconds=0.01),
                "unix": Pusher(lambda n: unix.send(message("unix", n)), pause_seconds=0.01),
            }
            for pusher in pushers.values():
                pusher.start()
            yield pushers

    def _write(self, number: int) -> None:
        data = line(number)
        while data:
            data = data[os.write(self._pipe, data) :]

    def _tls_connection(self) -> ssl.SSLSocket:
        pki = self.site.directory / "pki"
        context = ssl.create_default_context(cafile=str(pki / "ca.pem"))
        context.load_cert_chain(pki / "forwarder.pem", pki / "forwarder.key")
        return context.wrap_socket(socket.create_connection(("localhost", self._tls)), server_hostname="localhost")

    # -- looking -----------------------------------------------------------------------------------------------

    def rows(self) -> dict[str, dict[str, Any]]:
        with suppress(NotAnswered):
            rows = self.site.streams()
            return rows if rows.keys() == set(STREAMS) else {}
        return {}

    def flows(self) -> bool:
        """Something of every stream is in Kafka."""
        rows = self.rows()
        return bool(rows) and all(row["records"]["acknowledged"] for row in rows.values())

    def is_full(self) -> bool:
        """Every spool, up to a batch that does not fit."""
        rows = self.rows()
        return bool(rows) and all(row["spool"]["bytes"] > 14 * MIB for row in rows.values())

    def dropped(self) -> Counter[str]:
        """Syslog messages that were not kept, by reason."""
        with urllib.request.urlopen(f"http://{self.site.admin_address}/metrics", timeout=PATIENCE_SECONDS) as answer:
            text = answer.read().decode()
        found = re.findall(r'^logfwd_syslog_dropped_messages_total\{reason="(\w+)".*\} (\S+)$', text, re.MULTILINE)
        return Counter({reason: int(float(value)) for reason, value in found})

    def look(self, pushers: dict[str, Pusher]) -> tuple[list[int], dict[str, int]]:
        """Memory while the clients push on, and how many messages of each were taken meanwhile."""
        before, memory = {name: pusher.sent for name, pusher in pushers.items()}, list[int]()
        for _ in range(LOOKS):
            time.sleep(EVERY_SECONDS)
            memory.append(rss_bytes(self.site))
        return memory, {name: pusher.sent - before[name] for name, pusher in pushers.items()}

    def stored(self, stream: str) -> list[dict[str, Any]]:
        return [json.loads(value) for value in read_topic(self._kafka.bootstrap, stream)]

    def close(self) -> None:
        os.close(self._pipe)


def test_with_kafka_stopped_and_killed_under_full_input_of_every_source_memory_is_flat_and_nothing_taken_is_lost(
    tmp_path: Path,
) -> None:
    with Kafka(tmp_path / "kafka", jvm_options=UP_SOONER) as kafka, Site(tmp_path / "site") as site:
        pressure = Pressure(site, kafka)
        idle = rss_bytes(site)
        with pressure.pushers() as pushers:
            assert wait_until(
                lambda: (
                    all(row["records"]["acknowledged"] for row in pressure.rows().values()) and pressure.rows() != {}
                ),
                60,
            ), pressure.rows()
            kafka.pause()
            assert wait_until(pressure.is_full, 180), pressure.rows()
            refused = sum((sender.answers for sender in pressure.web), Counter[int]())[429]
            stopped, taken_stopped = pressure.look(pushers)
            kafka.kill()
            killed, taken_killed = pressure.look(pushers)
            refused = sum((sender.answers for sender in pressure.web), Counter[int]())[429] - refused
            kafka.restart()
            sent = {name: pusher.stop() if name != "stdin" else LINES for name, pusher in pushers.items()}
            pushers["stdin"].join(120)
            slowest = pushers["unix"].slowest_seconds
        assert site.wait_until_drained(list(STREAMS), 120), site.streams()
        dropped = pressure.dropped()
        site.stop()
        stored = {name: pressure.stored(name) for name in STREAMS}
        pressure.close()
    print(f"memory, MiB: idle {idle // MIB}, Kafka stopped {min(stopped) // MIB}–{max(stopped) // MIB},", end=" ")
    print(f"killed {min(killed) // MIB}–{max(killed) // MIB}")
    print(f"taken in {LOOKS * EVERY_SECONDS:.0f} s each: stopped {taken_stopped}, killed {taken_killed}")
    print(f"429: {refused}; dropped: {dict(dropped)}; longest send to the Unix socket {slowest * 1000:.0f} ms")
    assert max(stopped + killed) < 400 * MIB
    assert max(killed) <= max(stopped) * 1.1
    for name in ("stdin", "tcp", "tls"):
        assert taken_stopped[name] == taken_killed[name] == 0, f"{name}: the client waits"
    for name in ("udp", "unix"):
        assert min(taken_stopped[name], taken_killed[name]) > 50, f"{name}: the client goes on"
    assert refused > 20
    judge(pressure, sent, stored, dropped)


def judge(
    pressure: Pressure, sent: dict[str, int], stored: dict[str, list[dict[str, Any]]], dropped: Counter[str]
) -> None:
    """What was taken is there once; of the datagrams, what was not dropped and counted."""
    for name in ("file", "stdin"):
        assert [record["n"] for record in stored[name]] == list(range(LINES)), name
    accepted = Counter(each for sender in pressure.web for each in sender.accepted)
    assert Counter(record["id"] for record in stored["web"]) == accepted
    assert len(accepted) > 10_000
    numbers: dict[str, list[int]] = {app: [] for app in ("tcp", "tls", "udp", "unix")}
    for record in stored["connections"] + stored["datagrams"]:
        numbers[record["app"]].append(int(record["message"].split()[0]))
    for app in ("tcp", "tls"):
        assert numbers[app] == list(range(sent[app])), app
    for app in ("udp", "unix"):
        assert len(numbers[app]) == len(set(numbers[app])), app
    of_datagrams = len(numbers["udp"]) + len(numbers["unix"])
    assert of_datagrams + dropped.total() == sent["udp"] + sent["unix"], dropped
