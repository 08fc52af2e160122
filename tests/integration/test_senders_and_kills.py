"""Clients that others wrote send as far as Kafka while the forwarder is killed with kill -9 and started again, and try
again as their configuration says. What each is promised (docs/inputs.md) is what is checked."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bench.lab.kafka import Kafka, free_ports
from bench.lab.processes import wait_until
from bench.lab.site import Site
from streams.security.endpoint import Credentials
from streams.telemetry.client import NotAnswered
from tests.support import syslog_clients
from tests.support.chaos import CHAOS
from tests.support.syslog_clients import answers, get, sending
from tests.support.to_kafka import records, start, syslog_source

pytestmark = pytest.mark.kafka
KILLS = 3
IN_A_REQUEST = 4_000
CONNECTED = ("rsyslog", "rsyslog-tls", "syslog-ng", "syslog-ng-tls") if CHAOS else ("syslog-ng", "syslog-ng-tls")
"""rsyslog in `make chaos` alone: it may take minutes to go on after it has lost a connection."""
CLIENTS = ("file", "keyed", "unkeyed", "logger", *CONNECTED, "nginx-udp", "nginx-unix")


class Client(threading.Thread):
    """Sends one thing after the other, until it is told to stop; `sent` are the numbers of what was sent."""

    def __init__(self, send: Callable[[int], None], pause_seconds: float) -> None:
        super().__init__(daemon=True)
        self._send, self._pause_seconds = send, pause_seconds
        self._stop_asked = threading.Event()
        self.sent = 0

    def run(self) -> None:
        while not self._stop_asked.wait(self._pause_seconds):
            self._send(self.sent)
            self.sent += 1

    def stop(self) -> None:
        """Returns when the last one was sent."""
        self._stop_asked.set()
        self.join(120)
        assert not self.is_alive()


class Scene:
    """A site with a stream for each client, and the clients."""

    def __init__(self, site: Site, kafka: Kafka, programs: dict[str, str]) -> None:
        self.site, self._kafka, self._programs = site, kafka, programs
        self._run = uuid.uuid4().hex[:8]
        self.ports = dict(zip(("http", *CLIENTS, "web-udp", "web-unix"), free_ports(len(CLIENTS) + 3), strict=True))
        self.lines = site.directory / "lines"
        self.lines.touch()
        self.retried: dict[str, set[int]] = {"unkeyed": set(), "keyed": set(), "logger": set()}
        self.statuses: set[int] = set()
        start(site, kafka, {self.stream(client): self._source(client) for client in CLIENTS})

    def stream(self, client: str) -> str:
        return f"{client}-{self._run}"

    def _source(self, client: str) -> str:
        address = f"127.0.0.1:{self.ports[client]}"
        if client == "file":
            return '[source]\ntype = "file"\nformat = "text"\npaths = ["lines"]\nscan = "50ms"\n'
        if client in ("keyed", "unkeyed"):
            return f'[source]\ntype = "http"\naddress = "127.0.0.1:{self.ports["http"]}"\n'
        if client.endswith("-tls"):
            return syslog_source(tcp_tls=f"localhost:{self.ports[client]}")
        if client == "nginx-udp":
            return syslog_source(udp=address)
        return syslog_source(unix=self.socket) if client == "nginx-unix" else syslog_source(tcp=address)

    @property
    def socket(self) -> Path:
        return self.site.directory / "log.sock"

    # -- clients -----------------------------------------------------------------------------------------------

    def clients(self) -> dict[str, Client]:
        return {
            "lines": Client(self._append, 0.02),
            "keyed": Client(lambda number: self._curl("keyed", number), 0.05),
            "unkeyed": Client(lambda number: self._curl("unkeyed", number), 0.05),
            "logger": Client(self._log, 0.02),
            "nginx-udp": Client(lambda number: self._get("web-udp", number), 0.02),
            "nginx-unix": Client(lambda number: self._get("web-unix", number), 0.02),
        }

    def _append(self, number: int) -> None:
        with self.lines.open("a") as out:
            out.write("".join(f"number {each}\n" for each in range(20 * number, 20 * (number + 1))))

    def _curl(self, client: str, number: int) -> None:
        """A request that curl sends again until it is stored; large ones are several batches."""
        first, size = number * IN_A_REQUEST, IN_A_REQUEST if number % 2 else 10
        body = "".join(f'{{"number":{first + each},"padding":"{"x" * 300}"}}\n' for each in range(size))
        argv = [self._programs["curl"], "--no-progress-meter", "--fail", "--retry", "100", "--retry-delay", "1"]
        argv += ["--retry-all-errors", "-H", "Content-Type: application/x-ndjson", "--data-binary", "@-"]
        if client == "keyed":
            argv += ["-H", f"Idempotency-Key: {self._run}-{number}"]
        url = f"http://127.0.0.1:{self.ports['http']}/ingest/{self.stream(client)}"
        ended = subprocess.run([*argv, url], input=body, text=True, capture_output=True, timeout=120, check=False)
        assert ended.returncode == 0, ended.stderr
        if "Will retry" in ended.stderr:
            self.retried[client].add(number)

    def _log(self, number: int) -> None:
        argv = [self._programs["logger"], "-n", "127.0.0.1", "-P", str(self.ports["logger"]), "-T", "--octet-count"]
        while subprocess.run([*argv, f"number {number}"], capture_output=True, timeout=60, check=False).returncode:
            self.retried["logger"].add(number)
            time.sleep(0.05)

    def _get(self, web: str, number: int) -> None:
        self.statuses.add(get(self.ports[web], f"/{number}"))

    @contextlib.contextmanager
    def daemons(self, rsyslog_root: Path, syslog_ng_root: Path, nginx_root: Path) -> Iterator[None]:
        """Two rsyslogs and two syslog-ngs that send the lines, and two nginx that are asked."""
        pki, work = self.site.directory / "pki", self.site.directory
        files = Credentials(certificate=pki / "forwarder.pem", key=pki / "forwarder.key", ca=pki / "ca.pem")
        with contextlib.ExitStack() as stack:
            for client in CONNECTED:
                tls = files if client.endswith("-tls") else None
                address = f"{'127.0.0.1' if tls is None else 'localhost'}:{self.ports[client]}"
                if client.startswith("rsyslog"):
                    sender = syslog_clients.rsyslog(rsyslog_root, work / client, self.lines, address, files=tls)
                else:
                    driver = syslog_clients.syslog_ng_driver(address, tls)
                    sender = syslog_clients.syslog_ng(syslog_ng_root, work / client, self.lines, driver)
                stack.enter_context(sending(sender))
            servers = {"web-udp": f"127.0.0.1:{self.ports['nginx-udp']}", "web-unix": f"unix:{self.socket}"}
            for web, server in servers.items():
                port = self.ports[web]
                stack.enter_context(sending(syslog_clients.nginx(nginx_root, work / web, server, port)))
                assert wait_until(lambda: answers(port), 30, every_seconds=0.05)  # noqa: B023
            yield

    # -- what became of it -------------------------------------------------------------------------------------

    def accepted(self) -> dict[str, int]:
        """Records of each client that are in the spool, or were."""
        with contextlib.suppress(NotAnswered):
            rows = self.site.streams()
            return {
                client: rows[self.stream(client)]["records"]["accepted"]
                for client in CLIENTS
                if self.stream(client) in rows
            }
        return {}

    def kill_and_restart(self) -> dict[str, int]:
        """Once every client has sent something in this life; returns what was accepted before the end."""
        begun: dict[str, int] = {}

        def all_have_sent() -> bool:
            now = self.accepted()
            for client in CLIENTS if len(now) == len(CLIENTS) else ():
                begun.setdefault(client, now[client])
            return bool(begun) and all(now[client] > begun[client] for client in CLIENTS)

        assert wait_until(all_have_sent, 60, every_seconds=0.1), (begun, self.accepted(), self.site.forwarder.tail())
        before = self.accepted()
        self.site.forwarder.kill()
        self.site.start_forwarder()
        return before

    def stored(self, client: str) -> list[int]:
        """The numbers of a client in Kafka."""
        found = (_number(client, record) for record in records(self._kafka, self.stream(client)))
        return [number for number in found if number is not None]


def _number(client: str, record: dict[str, Any]) -> int | None:
    if client in ("keyed", "unkeyed"):
        return int(record["number"])
    words = str(record["message"]).split()
    if client.startswith("nginx"):
        return int(words[6][1:])
    return int(words[1]) if words[0] == "number" else None  # rsyslog says that it has started


def requested(requests: int) -> list[int]:
    """The numbers in the requests of a curl client."""
    sizes = [IN_A_REQUEST if number % 2 else 10 for number in range(requests)]
    return [number * IN_A_REQUEST + each for number, size in enumerate(sizes) for each in range(size)]


def test_forwarder_killed_while_clients_that_others_wrote_send(
    tmp_path: Path,
    kafka: Kafka,
    rsyslog_root: Path,
    syslog_ng_root: Path,
    nginx_root: Path,
    curl: str,
    logger: str,
) -> None:
    with Site(tmp_path / "site") as site:
        scene = Scene(site, kafka, {"curl": curl, "logger": logger})
        with scene.daemons(rsyslog_root, syslog_ng_root, nginx_root):
            clients = scene.clients()
            for client in clients.values():
                client.start()
            committed = [scene.kill_and_restart() for _ in range(KILLS)]
            for client in clients.values():
                client.stop()
            sent = {name: client.sent for name, client in clients.items()}
            last = 20 * sent["lines"] - 1
            for name in CONNECTED:
                assert wait_until(lambda: last in scene.stored(name)[-1:], 60), (name, scene.stored(name)[-3:])  # noqa: B023
            assert site.wait_until_drained([scene.stream(name) for name in CLIENTS], 60), site.streams()
        site.stop()
        stored = {client: scene.stored(client) for client in CLIENTS}
    for name, numbers in stored.items():
        everything = set(_all_of(name, sent))
        lost = len(everything - set(numbers))
        print(f"{name:14} sent {len(everything):7} stored {len(numbers):7} lost {lost}")
        assert len(numbers) >= max(before[name] for before in committed), f"{name}: what was committed is there"
        assert set(numbers) <= everything, name
    judge(scene, sent, stored)


def _all_of(client: str, sent: dict[str, int]) -> range | list[int]:
    if client in ("keyed", "unkeyed"):
        return requested(sent[client])
    return range(sent[client] if client in sent else 20 * sent["lines"])


def judge(scene: Scene, sent: dict[str, int], stored: dict[str, list[int]]) -> None:
    """What is promised to each client."""
    assert stored["file"] == list(range(20 * sent["lines"])), "a file: once, in order"
    assert sorted(stored["keyed"]) == requested(sent["keyed"]), "with a key: once"
    assert scene.retried["keyed"], "no client was disturbed"
    assert set(stored["unkeyed"]) == set(requested(sent["unkeyed"])), "without a key: nothing is missing"
    copies = Counter(stored["unkeyed"])
    repeated = {number // IN_A_REQUEST for number, count in copies.items() if count > 1}
    assert repeated <= scene.retried["unkeyed"], "and only what curl sent again may be there twice"
    assert len(repeated) <= KILLS
    for client in CONNECTED:
        numbers = stored[client]
        assert numbers == sorted(set(numbers)), f"{client}: in order, and none twice"
        assert sum(after - before > 1 for before, after in pairwise([-1, *numbers])) <= KILLS, f"{client}: at the kills"
    twice = {number for number, count in Counter(stored["logger"]).items() if count > 1}
    assert twice <= scene.retried["logger"], "logger: twice only what it sent twice"
    for client in ("nginx-udp", "nginx-unix"):
        assert len(stored[client]) == len(set(stored[client])), f"{client}: none twice"
    assert scene.statuses == {204}, "nginx went on serving"
