"""Messages of senders that others wrote: logger(1), rsyslog, syslog-ng and nginx. Counts in = counts in the sink."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bench.lab.debian import unpack
from bench.lab.processes import StartFailed
from bench.lab.site import Site
from bench.speed.rsyslog import free_port
from logfwd.forwarder import Forwarder
from logfwd.sources.syslog.settings import SyslogSource
from logfwd.sources.terms import ListenerTls
from logreceiver.sinks.log.sink import read_records
from tests.support import syslog_clients
from tests.support.installation import Installation, eventually, forwarding, running
from tests.support.syslog_clients import Sender, logger

COUNT = 5_000


class Taking:
    """A forwarder that takes messages, a receiver, and what it has stored."""

    def __init__(self, installation: Installation, forwarder: Forwarder) -> None:
        self.installation, self.forwarder = installation, forwarder
        self.socket = str(installation.directory / "syslog.sock")

    def address(self, transport: str) -> str:
        assert self.forwarder.listeners.syslog is not None
        return self.forwarder.listeners.syslog.address("http", transport)

    def stored(self) -> list[dict[str, Any]]:
        return [json.loads(record) for record in self.installation.stored()]

    async def stores(self, count: int) -> list[dict[str, Any]]:
        await eventually(lambda: len(self.installation.stored()) >= count, 30)
        return self.stored()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Taking]:
    installation = Installation(tmp_path)
    files = installation.parties.receiver
    source = SyslogSource(
        udp=("127.0.0.1:0",),
        tcp=("127.0.0.1:0",),
        tcp_tls=("localhost:0",),
        unix=(str(tmp_path / "syslog.sock"),),
        tls=ListenerTls(certificate=files.certificate, key=files.key, ca=files.ca, modes=("hybrid", "classical")),
        identities=("spiffe://test/*",),
    )
    async with running(installation.receiver_config()) as service:
        config = installation.forwarder_config(service.listeners[0].address, installation.stream(source=source))
        async with forwarding(config) as forwarder:
            yield Taking(installation, forwarder)


def packages(names: tuple[str, ...], factory: pytest.TempPathFactory) -> Path:
    try:
        return unpack(names, factory.mktemp(names[0]))
    except StartFailed as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def rsyslog_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packages(syslog_clients.RSYSLOG, tmp_path_factory)


@pytest.fixture(scope="session")
def syslog_ng_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packages(syslog_clients.SYSLOG_NG, tmp_path_factory)


@pytest.fixture(scope="session")
def nginx_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packages(syslog_clients.NGINX, tmp_path_factory)


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "lines"
    path.write_text("".join(f'number {number} "café" \\ ]\n' for number in range(COUNT)))
    return path


async def get(port: int, path: str) -> int:
    """The status of one answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
    status = int((await reader.read()).split()[1])
    writer.close()
    return status


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


@contextlib.contextmanager
def sending(sender: Sender) -> Iterator[Sender]:
    try:
        yield sender
    finally:
        sender.stop()


def messages_of(stored: list[dict[str, Any]], app: str) -> Counter[str]:
    return Counter(str(record.get("message")).strip() for record in stored if record.get("app") == app)


EVERY_LINE = Counter(f'number {number} "café" \\ ]' for number in range(COUNT))


async def test_logger_over_every_transport_in_both_formats(site: Taking) -> None:
    for name, transport in (("udp", "-d"), ("tcp", "-T")):
        host, port = site.address(name).split(":")
        for fmt in ("--rfc5424", "--rfc3164"):
            await logger("-n", host, "-P", port, transport, fmt, "-t", name, "-p", "mail.err", "--id=7", "caf\u00e9")
    host, port = site.address("tcp").split(":")
    await logger("-n", host, "-P", port, "-T", "--octet-count", "-t", "counted", stdin=b"one\ntwo\nthree\n")
    await logger("-u", site.socket, "-t", "unix", "-i", "local")
    parameters = ("--sd-id", "shop@32473", "--sd-param", 'order="17"')
    await logger("-u", site.socket, "--rfc5424", "-t", "data", "--msgid", "ID47", *parameters, "with data")
    stored = await site.stores(9)
    by_app = {app: [record for record in stored if record["app"] == app] for app in ("udp", "tcp")}
    for app, found in by_app.items():
        assert len(found) == 2, app
        for record in found:
            fields = {name: record[name] for name in ("facility", "severity", "procid", "message")}
            assert fields == {"facility": "mail", "severity": "err", "procid": "7", "message": "café"}
            assert record["host"]
            assert record["timestamp"][:2] == "20"
    assert messages_of(stored, "counted") == Counter(["one", "two", "three"])
    (local,) = (record for record in stored if record["app"] == "unix")
    assert "host" not in local
    assert local["message"] == "local"
    (data,) = (record for record in stored if record["app"] == "data")
    assert data["msgid"] == "ID47"
    assert data["structured_data"]["shop@32473"] == {"order": "17"}


@pytest.mark.parametrize("counted", [True, False], ids=["counted", "lines"])
async def test_rsyslog_over_tcp(site: Taking, rsyslog_root: Path, lines: Path, counted: bool) -> None:
    work = site.installation.directory / "rsyslog"
    with sending(syslog_clients.rsyslog(rsyslog_root, work, lines, site.address("tcp"), counted=counted)) as sender:
        stored = await site.stores(COUNT)
        assert messages_of(stored, "app") == EVERY_LINE, sender.log.read_text()


async def test_rsyslog_over_tls(site: Taking, rsyslog_root: Path, lines: Path) -> None:
    work, files = site.installation.directory / "rsyslog", site.installation.parties.forwarder
    with sending(syslog_clients.rsyslog(rsyslog_root, work, lines, site.address("tcp_tls"), files=files)) as sender:
        stored = await site.stores(COUNT)
        assert messages_of(stored, "app") == EVERY_LINE, sender.log.read_text()


async def test_syslog_ng(site: Taking, syslog_ng_root: Path, lines: Path) -> None:
    host, port = site.address("tcp").split(":")
    driver = f'syslog("{host}" transport("tcp") port({port}));'
    with sending(syslog_clients.syslog_ng(syslog_ng_root, site.installation.directory / "ng", lines, driver)) as sender:
        await eventually(lambda: len(site.installation.stored()) >= COUNT or sender.ended, 30)
        found = Counter(str(record["message"]).strip() for record in site.stored() if "number" in record["message"])
        assert found == EVERY_LINE, sender.log.read_text()
        assert not any("invalid" in record for record in site.stored())


@pytest.mark.parametrize("transport", ["udp", "unix"])
async def test_the_access_log_of_nginx(site: Taking, nginx_root: Path, transport: str) -> None:
    server = f"unix:{site.socket}" if transport == "unix" else site.address("udp")
    port = free_port()
    with sending(syslog_clients.nginx(nginx_root, site.installation.directory / "nginx", server, port)) as sender:
        await eventually(lambda: answers(port) or sender.ended)
        for number in range(50):
            assert await get(port, f"/page{number}") == 204, sender.log.read_text()
        stored = await site.stores(50)
    requests = [record for record in stored if "/page" in record["message"]]
    assert all(record["app"] == "nginx" and record["facility"] == "local7" for record in requests)
    assert sorted(record["message"].split()[6] for record in requests) == sorted(f"/page{n}" for n in range(50))


def test_a_kill_9_in_the_middle_repeats_nothing_and_loses_only_what_was_on_its_way(
    tmp_path: Path, rsyslog_root: Path
) -> None:
    """Syslog has no acknowledgements: what was committed is there once, in order, and what comes after the restart."""
    port, total, source = free_port(), 40_000, tmp_path / "lines"
    source.touch()
    with Site(tmp_path / "site") as site:
        site.make_pki()
        site.write_receiver(f'type = "log"\ndirectory = "{tmp_path}/log"', listeners={"localhost:0": '["hybrid"]'})
        (address,) = site.start_receiver()
        site.write_forwarder([address])
        site.write_stream("syslog", f'[source]\ntype = "syslog"\ntcp = ["127.0.0.1:{port}"]\n')
        site.start_forwarder()
        with sending(syslog_clients.rsyslog(rsyslog_root, tmp_path / "rsyslog", source, f"127.0.0.1:{port}")):
            for start in range(0, total, 1000):
                with source.open("a") as out:
                    out.write("".join(f"number {number}\n" for number in range(start, start + 1000)))
                time.sleep(0.05)
                if start == total // 2:
                    committed = site.streams()["syslog"]["records"]["accepted"]
                    site.forwarder.kill()
                    site.start_forwarder()
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                stored = [json.loads(record.value or b"") for record in read_records(tmp_path / "log", "syslog")]
                numbers = [int(record["message"].split()[1]) for record in stored if record["app"] == "app"]
                if numbers and numbers[-1] == total - 1:
                    break
                time.sleep(0.2)
    assert numbers == sorted(set(numbers)), "in order, and none twice"
    assert numbers[-1] == total - 1
    assert len(numbers) >= committed > 0
    lost = total - len(numbers)
    gaps = sum(after - before > 1 for before, after in pairwise([-1, *numbers]))
    assert gaps <= 1, "one stretch, at the kill"
    assert lost <= 5_000, lost
