"""Syslog listeners under pressure: full streams, hostile clients, reloads; and each loss is counted as what it is."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from msgspec.structs import replace

from logfwd.definition import BatchLimits, SpoolLimits
from logfwd.forwarder import Forwarder
from logfwd.sources.syslog.settings import SyslogSource
from logfwd.sources.terms import ListenerTls
from streams.addresses import split_address
from streams.config.units import KIB, MIB
from streams.security import stacks
from streams.security.modes import MODES
from tests.support.installation import Installation, eventually, forwarding, found, running
from tests.support.patience import PATIENCE_SECONDS
from tests.support.syslog_clients import counted, logger

NOWHERE = "localhost:1"
"""A receiver that does not answer: what is stored stays in the spool."""


def message(number: int, size: int = 0) -> bytes:
    return b"<13>1 - - app - - - %d %s" % (number, b"x" * size)


def address(forwarder: Forwarder, transport: str, stream: str = "http") -> tuple[str, int]:
    assert forwarder.listeners.syslog is not None
    return split_address(forwarder.listeners.syslog.address(stream, transport))


def count(forwarder: Forwarder, name: str, reason: str, stream: str = "http") -> float:
    value = forwarder.registry.get_sample_value(f"logfwd_syslog_{name}_total", {"stream": stream, "reason": reason})
    return value or 0.0


def accepted(forwarder: Forwarder, stream: str = "http") -> int:
    return sum(row["records"]["accepted"] for row in forwarder.describe() if row["stream"] == stream)


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


@contextlib.asynccontextmanager
async def serving(
    installation: Installation, source: SyslogSource, receiver: str = NOWHERE, **changes: Any
) -> AsyncIterator[Forwarder]:
    stream = installation.stream(source=source, **changes)
    async with forwarding(installation.forwarder_config(receiver, stream)) as forwarder:
        await eventually(forwarder.describe)
        yield forwarder


def numbers(installation: Installation) -> list[int]:
    return [int(json.loads(record)["message"].split()[0]) for record in installation.stored()]


TINY = SpoolLimits(max_spool_bytes=MIB)
INCOMPRESSIBLE: dict[str, Any] = {
    "codec": "none",
    "batch": BatchLimits(max_batch_bytes=64 * KIB, linger_seconds=0.02),
    "spool": TINY,
}


async def test_a_full_stream_holds_up_tcp_and_drops_datagrams_and_never_blocks_a_sender(
    installation: Installation,
) -> None:
    path = installation.directory / "dev-log"
    source = SyslogSource(tcp=("127.0.0.1:0",), unix=(str(path),), max_buffer_bytes=MIB)
    async with serving(installation, source, **INCOMPRESSIBLE) as forwarder:
        _, writer = await asyncio.open_connection(*address(forwarder, "tcp"))
        sent = 0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):
                while True:
                    writer.write(counted([message(sent, 10_000)]))
                    sent += 1
                    await writer.drain()
        assert accepted(forwarder) < sent
        assert count(forwarder, "dropped_messages", "no_room") == 0
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            client.connect(str(path))
            client.settimeout(PATIENCE_SECONDS)
            for number in range(500):
                await asyncio.to_thread(client.send, message(number, 10_000))
            await eventually(lambda: count(forwarder, "dropped_messages", "no_room") > 0)
        writer.transport.abort()


async def test_with_over_drop_a_full_stream_does_not_hold_up_tcp_either(installation: Installation) -> None:
    source = SyslogSource(tcp=("127.0.0.1:0",), max_buffer_bytes=MIB, over="drop")
    async with serving(installation, source, **INCOMPRESSIBLE) as forwarder:
        _, writer = await asyncio.open_connection(*address(forwarder, "tcp"))
        for number in range(2000):
            writer.write(counted([message(number, 10_000)]))
            await asyncio.wait_for(writer.drain(), 10)
        await eventually(lambda: count(forwarder, "dropped_messages", "no_room") > 0)
        writer.transport.abort()


async def test_every_datagram_is_stored_or_counted(installation: Installation) -> None:
    """Sent while the event loop does nothing else, so that the kernel has to drop some."""
    source = SyslogSource(udp=("127.0.0.1:0",), max_buffer_bytes=MIB, max_message_bytes=2 * KIB)
    async with serving(installation, source) as forwarder:
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        client.connect(address(forwarder, "udp"))
        total = 30_000
        for number in range(total):
            client.send(message(number, 300))
        client.send(message(0, 3 * KIB))

        def lost() -> float:
            return sum(count(forwarder, "dropped_messages", reason) for reason in ("receive_queue", "no_room"))

        more = 0
        while accepted(forwarder) + lost() < total and more < 1000:
            await asyncio.sleep(0.02)
            client.send(message(0))  # the kernel's count comes with the next message
            more += 1
        await eventually(
            lambda: accepted(forwarder) + lost() + count(forwarder, "dropped_messages", "too_long") == total + 1 + more
        )
        assert count(forwarder, "dropped_messages", "receive_queue") > 0
        client.close()


async def test_listeners_and_connections_outlive_a_reload_of_their_stream(installation: Installation) -> None:
    path = installation.directory / "dev-log"
    source = SyslogSource(tcp=("127.0.0.1:0",), udp=("127.0.0.1:0",), unix=(str(path),))
    async with (
        running(installation.receiver_config()) as service,
        serving(installation, source, service.listeners[0].address) as forwarder,
    ):
        places = [address(forwarder, transport) for transport in ("tcp", "udp")]
        inode = path.stat().st_ino
        _, writer = await asyncio.open_connection(*places[0])
        local = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        local.connect(str(path))
        sent = 0
        for round_ in range(3):
            for _ in range(100):
                writer.write(counted([message(sent)]))
                local.send(message(sent + 1))
                sent += 2
                await asyncio.sleep(0)
            changed = replace(
                forwarder.config,
                streams=(
                    installation.stream(
                        source=replace(source, max_message_bytes=(round_ + 2) * KIB),
                        batch=BatchLimits(linger_seconds=0.01 * (round_ + 1)),
                    ),
                ),
            )
            assert (await forwarder.reload(lambda changed=changed: changed)).outcome == "taken"  # type: ignore[misc]
        assert [address(forwarder, transport) for transport in ("tcp", "udp")] == places
        assert path.stat().st_ino == inode
        await eventually(lambda: len(installation.stored()) >= sent)
        assert sorted(numbers(installation)) == list(range(sent))
        writer.close()
        local.close()
    assert not path.exists()


async def test_each_breach_ends_its_connection_alone_and_is_counted(installation: Installation) -> None:
    source = SyslogSource(tcp=("127.0.0.1:0",), max_message_bytes=KIB, max_connections=8, idle_seconds=1.0)
    source = replace(source, message_seconds=0.3)
    with structlog.testing.capture_logs() as events:
        async with serving(installation, source) as forwarder:
            place = address(forwarder, "tcp")
            _, good = await asyncio.open_connection(*place)
            good.write(counted([message(0)]))
            for data, reason in (
                (b"GET / HTTP/1.1\r\n\r\n", "first_byte"),
                (b"\x16\x03\x01", "first_byte"),
                (counted([message(1)]) + b"x", "octet_count"),
                (counted([message(2)]) + b"2000 ", "too_long"),
                (message(3) + b"\n<" + b"y" * 2 * KIB, "too_long"),
                (b"<13>half", "half_message"),
                (b"50 <13>half", "half_message"),
            ):
                before = count(forwarder, "ended_connections", reason)
                reader, writer = await asyncio.open_connection(*place)
                writer.write(data)
                async with asyncio.timeout(PATIENCE_SECONDS):
                    with contextlib.suppress(ConnectionError):
                        assert await reader.read() == b""
                await eventually(lambda: count(forwarder, "ended_connections", reason) > before)  # noqa: B023
                writer.transport.abort()
                good.write(counted([message(9)]))
            await eventually(lambda: accepted(forwarder) >= 4 + 7 + 2)
            await eventually(lambda: count(forwarder, "ended_connections", "idle") == 1)
            good.transport.abort()
    assert {entry["reason"] for entry in found(events, "client refused")} >= {"first_byte", "octet_count", "too_long"}


async def test_a_thousand_connections_with_half_messages_cost_little_and_others_go_on(
    installation: Installation,
) -> None:
    source = SyslogSource(tcp=("127.0.0.1:0",), max_connections=200)
    path = installation.directory / "other"
    other = replace(installation.stream(source=SyslogSource(unix=(str(path),))), name="other")
    config = installation.forwarder_config(NOWHERE, installation.stream(source=source), other)
    async with forwarding(config) as forwarder:
        await eventually(lambda: len(forwarder.describe()) == 2)
        before, clients = resident_bytes(), list[socket.socket]()
        try:
            for _ in range(1000):
                client = socket.create_connection(address(forwarder, "tcp"))
                clients.append(client)
                client.setblocking(False)
                with contextlib.suppress(BlockingIOError, ConnectionError):
                    client.send(b"60000 <13>" + b"x" * 50_000)
                await asyncio.sleep(0)
            await eventually(lambda: count(forwarder, "ended_connections", "too_many_connections") >= 800)
            started = time.perf_counter()
            await logger("-u", str(path), "still here")
            await eventually(lambda: accepted(forwarder, "other") == 1)
            assert time.perf_counter() - started < 5
            assert resident_bytes() - before < 64 * MIB
        finally:
            for client in clients:
                client.close()


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def test_over_tls_only_identities_that_are_listed_may_send(installation: Installation) -> None:
    files = installation.parties.receiver
    tls = ListenerTls(certificate=files.certificate, key=files.key, ca=files.ca)
    source = SyslogSource(tcp_tls=("localhost:0",), tls=tls, identities=("web*",))
    async with serving(installation, source) as forwarder:
        host, port = address(forwarder, "tcp_tls")
        for name, may_send in (("web1", True), ("db1", False)):
            leaf = installation.parties.leaf(name, identities=[name])
            context = stacks.ssl_context(MODES["hybrid"], leaf)
            reader, writer = await asyncio.open_connection(host, port, ssl=context)
            writer.write(counted([message(1)]))
            if may_send:
                await eventually(lambda: accepted(forwarder) == 1)
            else:
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""
            writer.transport.abort()
        assert count(forwarder, "ended_connections", "identity") == 1
        _, writer = await asyncio.open_connection(host, port)
        writer.write(counted([message(1)]))
        await eventually(lambda: count(forwarder, "ended_connections", "handshake") == 1)
        writer.transport.abort()
        assert accepted(forwarder) == 1


async def test_a_socket_of_a_killed_process_is_replaced_and_one_in_use_is_not(installation: Installation) -> None:
    path = installation.directory / "dev-log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as abandoned:
        abandoned.bind(str(path))
        source = SyslogSource(unix=(str(path),))
        async with serving(installation, source) as forwarder:
            assert list(forwarder.listeners.troubles()) == [f"http/{path}"]
            abandoned.close()
            await eventually(lambda: not forwarder.listeners.troubles())
            assert path.stat().st_mode & 0o777 == 0o666
            await logger("-u", str(path), "hello")
            await eventually(lambda: accepted(forwarder) == 1)
    assert not path.exists()


async def test_a_field_of_add_is_for_messages_that_have_none_of_that_name(installation: Installation) -> None:
    """No record has a name twice, and what is not a syslog message gets the field, too."""
    path = str(installation.directory / "log.sock")
    source = SyslogSource(unix=(path,))
    add = {"host": "here", "cluster": "a"}
    sent = (
        b"<13>1 - web1 app - - - one",
        b"<13>1 - - app - - - two",
        b"nonsense",
        b"<13>app: three",
        b"\xff",
        b"<13>1 - web2 app - - - \xff",
    )
    async with (
        running(installation.receiver_config()) as service,
        serving(installation, source, service.listeners[0].address, add=add) as forwarder,
    ):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(path)
            for each in sent:
                sender.send(each)
        await eventually(lambda: len(installation.stored()) == len(sent))
        assert count(forwarder, "dropped_messages", "no_room") == 0
    members = [json.loads(record, object_pairs_hook=list) for record in installation.stored()]
    assert [[name for name, _ in each] for each in members] == [
        list(dict.fromkeys(name for name, _ in each)) for each in members
    ]
    fields = [dict(each) for each in members]
    assert [each["host"] for each in fields] == ["web1", "here", "here", "here", "here", "web2"]
    assert {each["cluster"] for each in fields} == {"a"}
    assert [each.get("invalid", False) for each in fields] == [False, False, True, False, True, False]
