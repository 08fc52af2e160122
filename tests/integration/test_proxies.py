"""A receiver behind proxies: a real Envoy, killed under load; and what is told of its clients and of probes."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from bench.lab import adminclient
from bench.lab.oracle import judge
from bench.lab.site import Site
from logreceiver.config import ReceiverConfig
from logreceiver.ledger.records import BatchEntry, decode
from logreceiver.sinks.log.sink import read_records
from streams.addresses import split_address
from tests.support.chaos import CHAOS
from tests.support.envoy import OWN_ADDRESS, running_envoy
from tests.support.installation import Installation, acknowledged, eventually, forwarding, found, lines, running
from tests.support.proxied import LOCAL, connected, header

CLIENT, PORT = "2001:db8::7", 40_001
PEER = f"[{CLIENT}]:{PORT}"
KILLS = 12 if CHAOS else 1
RECORDS_A_KILL = 3000
RECORDS = KILLS * RECORDS_A_KILL


def ledger_peers(directory: Path) -> list[str]:
    """Where the ledger says that each batch came from."""
    entries = [decode(bytes(record.value or b"")) for record in read_records(directory, "logfwd.ledger")]
    return [entry.peer for entry in entries if isinstance(entry, BatchEntry)]


@contextlib.asynccontextmanager
async def relay(target: str, first: bytes) -> AsyncIterator[str]:
    """Passes connections on behind these bytes."""

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*split_address(target))
        back.write(first)
        await asyncio.gather(pass_on(reader, back), pass_on(there, writer))

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


def behind_proxies(installation: Installation, proxy_from: str) -> ReceiverConfig:
    config = installation.receiver_config(address="127.0.0.1:0")
    listener = msgspec.structs.replace(config.listener[0], proxy_from=(proxy_from,))
    return msgspec.structs.replace(config, listener=(listener,))


async def test_log_api_and_ledger_have_the_forwarders_own_address(tmp_path: Path) -> None:
    installation = Installation(tmp_path)
    with capture_logs() as events:
        async with (
            running(behind_proxies(installation, "127.0.0.0/8")) as service,
            relay(service.listeners[0].address, header(CLIENT, PORT)) as address,
            forwarding(installation.forwarder_config(address, server_name="localhost")) as forwarder,
        ):
            installation.append(*lines(10))
            await eventually(lambda: acknowledged(forwarder) == 10, 60)
            (row,) = service._streams()
            assert [link["peer"] for link in row["newest_links"]] == [PEER]
    told = [*found(events, "handshake complete"), *found(events, "link opened")]
    assert [event["peer"] for event in told if "identities" in event or "identity" in event] == [PEER, PEER]
    assert set(ledger_peers(tmp_path / "log")) == {PEER}


async def test_headers_of_others_are_counted_and_logged_sparingly(tmp_path: Path) -> None:
    with capture_logs() as events:
        async with running(behind_proxies(Installation(tmp_path), "10.0.0.0/8")) as service:
            for _ in range(40):
                sock = await connected(service.listeners[0].address)
                await asyncio.get_running_loop().sock_sendall(sock, header(CLIENT))
                sock.close()
            sample = ("tls_handshakes_total", {"role": "receiver", "result": "not_a_proxy"})
            fields = dict.fromkeys(("stream", "mode", "group", "version"), "")
            await eventually(lambda: service.registry.get_sample_value(sample[0], sample[1] | fields) == 40, 30)
            assert 20 <= len(found(events, "handshake failed")) < 30


async def test_probes_are_counted_and_are_neither_failures_nor_log_lines(tmp_path: Path) -> None:
    with capture_logs() as events:
        async with running(behind_proxies(Installation(tmp_path), "127.0.0.0/8")) as service:
            for first in (b"", LOCAL, header(CLIENT)):
                sock = await connected(service.listeners[0].address)
                await asyncio.get_running_loop().sock_sendall(sock, first)
                sock.close()
            await eventually(lambda: service.registry.get_sample_value("logreceiver_probes_total") == 3, 30)
    assert not [event for event in events if event["log_level"] in ("warning", "error")]
    assert not found(events, "handshake failed")


@pytest.mark.slow
async def test_handshakes_behind_envoy_count_for_the_address_of_their_client(tmp_path: Path) -> None:
    crowd, most = "127.0.0.8", 10
    installation = Installation(tmp_path)
    config = behind_proxies(installation, OWN_ADDRESS)
    config = msgspec.structs.replace(config, limits=msgspec.structs.replace(config.limits, max_handshakes=most))
    async with running(config) as service:
        (listener,) = service.listeners
        with running_envoy(tmp_path, listener.address) as envoy:
            host, port = split_address(envoy.address)
            writers = [(await asyncio.open_connection(host, port, local_addr=(crowd, 0)))[1] for _ in range(3 * most)]
            sources = listener._pending._by_source
            await eventually(lambda: crowd in sources and OWN_ADDRESS not in sources, 30)
            assert len(sources[crowd]) > most // 2
            async with forwarding(installation.forwarder_config(envoy.address, server_name="localhost")) as forwarder:
                installation.append(*lines(10))
                await eventually(lambda: acknowledged(forwarder) == 10, 60)
            for writer in writers:
                writer.transport.abort()


@pytest.mark.slow
def test_kill_9_of_envoy_under_load_costs_and_repeats_nothing(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        site.make_pki()
        site.write_receiver('type = "log"\ndirectory = "log"', listeners={"127.0.0.1:0": '["hybrid"]'})
        config = tmp_path / "logreceiver.toml"
        config.write_text(
            re.sub(r"(?m)^modes = \[\"hybrid\"\]$", rf'\g<0>\nproxy_from = ["{OWN_ADDRESS}"]', config.read_text())
        )
        (receiver,) = site.start_receiver()
        with running_envoy(tmp_path, receiver, health_checks=True) as envoy:
            site.write_forwarder([envoy.address])
            site.write_stream("http", '[source]\ntype = "file"\npaths = ["http.log"]\n[batch]\nlinger = "20ms"\n')
            source = tmp_path / "http.log"
            source.touch()
            site.start_forwarder()
            written = 0
            with source.open("a") as out:
                for until in range(RECORDS_A_KILL, RECORDS + 1, RECORDS_A_KILL):
                    while written < until:
                        out.write(f'{{"n":{written},"stream":"http"}}\n')
                        out.flush()
                        written += 1
                        if written % 100 == 0:
                            time.sleep(0.005)
                    sent = written - RECORDS_A_KILL // 2  # by a link of its own: the one before was killed
                    assert site.wait_until_acknowledged(sent, ["http"], 60, poll_seconds=0.01), site.forwarder.tail()
                    envoy.kill()
                    envoy.start()
            assert site.wait_until_acknowledged(RECORDS, ["http"], 60)
            assert site.streams()["http"]["faults"]["link_failures"]
            (row,) = adminclient.streams(site.receiver.admin_address())
            peers = {link["peer"] for link in row["newest_links"]}
        told = [event for event in site.receiver.events() if event["event"] in ("handshake failed", "link opened")]
        site.stop()
    stored = (bytes(record.value or b"") for record in read_records(tmp_path / "log", "http"))
    finding = judge("http", RECORDS, stored, source="http")
    assert finding.exact, finding
    by_link = ledger_peers(tmp_path / "log")
    peers |= {event["peer"] for event in told} | set(by_link)
    assert {split_address(peer)[0] for peer in peers} == {"127.0.0.1"}, f"and not {OWN_ADDRESS}"
    assert len(set(by_link)) >= KILLS
    assert {event["event"] for event in told} == {"link opened"}
