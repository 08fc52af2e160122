"""Messages of senders that others wrote, as far as Kafka: logger(1), rsyslog, syslog-ng and nginx. What is sent is
there once, with its content. test_senders_and_kills.py has the same with a forwarder that is killed."""

from __future__ import annotations

import contextlib
import subprocess
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.lab.kafka import Kafka, free_ports
from bench.lab.processes import wait_until
from bench.lab.site import Site
from streams.security.endpoint import Credentials
from tests.support import syslog_clients
from tests.support.syslog_clients import answers, get, sending
from tests.support.to_kafka import listening, records, start, syslog_source

pytestmark = pytest.mark.kafka
COUNT = 5_000
EVERY_LINE = [f'number {number} "café" \\ ]' for number in range(COUNT)]
CLIENTS = ("logger", "counted", "lines", "rsyslog-tls", "syslog-ng", "syslog-ng-tls", "nginx")


class Taking:
    """A running site with a stream for each client, and what Kafka has of it."""

    def __init__(self, site: Site, kafka: Kafka, run: str) -> None:
        self.site, self._kafka, self._run = site, kafka, run

    def address(self, client: str, transport: str) -> str:
        return listening(self.site, f"{client}-{self._run}", transport)

    def socket(self, client: str) -> str:
        return str(self.site.directory / f"{client}.sock")

    def credentials(self) -> Credentials:
        pki = self.site.directory / "pki"
        return Credentials(certificate=pki / "forwarder.pem", key=pki / "forwarder.key", ca=pki / "ca.pem")

    def stores(self, client: str, count: int, app: str = "") -> list[dict[str, Any]]:
        """What is in the client's topic once there are so many records of an app, and none is left on the way."""
        stream = f"{client}-{self._run}"
        self.acknowledges(client, count)
        assert wait_until(lambda: len(self._stored(stream, app)) >= count, 30), self.site.forwarder.tail()
        assert self.site.wait_until_drained([stream], 30), self.site.forwarder.tail()
        return self._stored(stream, app)

    def acknowledges(self, client: str, count: int) -> None:
        """Returns when so many records of the client are in Kafka."""
        assert self.site.wait_until_acknowledged(count, [f"{client}-{self._run}"], 60), self.site.forwarder.tail()

    def _stored(self, stream: str, app: str) -> list[dict[str, Any]]:
        return [record for record in records(self._kafka, stream) if app in ("", record.get("app"))]


@pytest.fixture(scope="module")
def taking(kafka: Kafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Taking]:
    run = uuid.uuid4().hex[:8]
    with Site(tmp_path_factory.mktemp("site")) as site:
        anywhere = {"udp": "127.0.0.1:0", "tcp": "127.0.0.1:0", "tcp_tls": "localhost:0"}
        streams = {
            f"{client}-{run}": syslog_source(**anywhere, unix=site.directory / f"{client}.sock") for client in CLIENTS
        }
        start(site, kafka, streams)
        site.forwarder.wait_for("syslog listening", times=4 * len(CLIENTS))
        yield Taking(site, kafka, run)


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "lines"
    path.write_text("".join(f"{line}\n" for line in EVERY_LINE))
    return path


def test_logger_over_every_transport_in_both_formats(taking: Taking, logger: str) -> None:
    def log(*arguments: object, stdin: str = "") -> None:
        subprocess.run([logger, *map(str, arguments)], input=stdin, text=True, check=True, timeout=60)

    for name, transport in (("udp", "-d"), ("tcp", "-T")):
        host, port = taking.address("logger", name).split(":")
        for fmt in ("--rfc5424", "--rfc3164"):
            log("-n", host, "-P", port, transport, fmt, "-t", name, "-p", "mail.err", "--id=7", "caf\u00e9")
    host, port = taking.address("logger", "tcp").split(":")
    many = "".join(f"line {number}\n" for number in range(2_000))
    log("-n", host, "-P", port, "-T", "--octet-count", "-t", "many", stdin=many)
    log("-u", taking.socket("logger"), "-t", "many-unix", stdin=many)
    log("-u", taking.socket("logger"), "-t", "unix", "-i", "local")
    parameters = ("--sd-id", "shop@32473", "--sd-param", 'order="17"')
    log("-u", taking.socket("logger"), "--rfc5424", "-t", "data", "--msgid", "ID47", *parameters, "with data")
    stored = taking.stores("logger", 4_006)
    assert len(stored) == 4_006
    by_app = {app: [record for record in stored if record["app"] == app] for app in ("udp", "tcp")}
    for app, found in by_app.items():
        assert len(found) == 2, app
        for record in found:
            fields = {name: record[name] for name in ("facility", "severity", "procid", "message")}
            assert fields == {"facility": "mail", "severity": "err", "procid": "7", "message": "café"}
            assert record["host"]
            assert record["timestamp"][:2] == "20"
    for app in ("many", "many-unix"):
        assert [f"{record['message']}\n" for record in stored if record["app"] == app] == many.splitlines(True)
    (local,) = (record for record in stored if record["app"] == "unix")
    assert "host" not in local
    assert local["message"] == "local"
    (data,) = (record for record in stored if record["app"] == "data")
    assert data["msgid"] == "ID47"
    assert data["structured_data"]["shop@32473"] == {"order": "17"}


@pytest.mark.parametrize("framing", ["counted", "lines"])
def test_rsyslog_over_tcp(taking: Taking, rsyslog_root: Path, lines: Path, framing: str) -> None:
    work, address = lines.parent / "rsyslog", taking.address(framing, "tcp")
    with sending(syslog_clients.rsyslog(rsyslog_root, work, lines, address, counted=framing == "counted")) as sender:
        stored = taking.stores(framing, COUNT, app="app")
        assert messages(stored) == EVERY_LINE, sender.log.read_text()


def test_rsyslog_over_tls(taking: Taking, rsyslog_root: Path, lines: Path) -> None:
    work, address = lines.parent / "rsyslog", taking.address("rsyslog-tls", "tcp_tls")
    files = taking.credentials()
    with sending(syslog_clients.rsyslog(rsyslog_root, work, lines, address, files=files)) as sender:
        stored = taking.stores("rsyslog-tls", COUNT, app="app")
        assert messages(stored) == EVERY_LINE, sender.log.read_text()


def messages(stored: list[dict[str, Any]]) -> list[str]:
    """The lines of the file: imfile puts a space before each."""
    return [str(record["message"]).strip() for record in stored]


@pytest.mark.parametrize("client", ["syslog-ng", "syslog-ng-tls"])
def test_syslog_ng(taking: Taking, syslog_ng_root: Path, lines: Path, client: str) -> None:
    files = taking.credentials() if client == "syslog-ng-tls" else None
    address = taking.address(client, "tcp" if files is None else "tcp_tls")
    driver = syslog_clients.syslog_ng_driver(address, files)
    with sending(syslog_clients.syslog_ng(syslog_ng_root, lines.parent / "ng", lines, driver)) as sender:
        stored = taking.stores(client, COUNT)
        assert [record["message"] for record in stored if "number" in record["message"]] == EVERY_LINE, (
            sender.log.read_text()
        )
        assert not any("invalid" in record for record in stored)


def test_the_access_log_of_nginx(taking: Taking, nginx_root: Path, tmp_path: Path) -> None:
    """nginx does not wait for a full socket, and that of a Unix socket may be full with 10 messages: it gets time."""
    servers = {"udp": taking.address("nginx", "udp"), "unix": f"unix:{taking.socket('nginx')}"}
    wanted = Counter[str]()
    with contextlib.ExitStack() as stack:
        for transport, server in servers.items():
            (port,) = free_ports(1)
            sender = syslog_clients.nginx(nginx_root, tmp_path / transport, server, port)
            stack.enter_context(sending(sender))
            assert wait_until(lambda: answers(port) or sender.ended, 30, every_seconds=0.05)  # noqa: B023
            for number in range(40):
                path = f"/{transport}/{number}"
                assert get(port, path) == 204, sender.log.read_text()
                wanted[path] += 1
                if transport == "unix" and number % 8 == 7:
                    taking.acknowledges("nginx", wanted.total())
        stored = taking.stores("nginx", wanted.total())
    requests = [record for record in stored if "GET /" in record["message"]]
    assert all(record["app"] == "nginx" and record["facility"] == "local7" for record in requests)
    assert Counter(record["message"].split()[6] for record in requests) == wanted
