"""Listeners behind proxies: which connections begin with a header, whose address a link has then, who is refused."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Coroutine
from ipaddress import ip_network

import pytest
import uvloop

from streams.errors import LinkError
from streams.security import introduction, stacks
from streams.security.listener import listen
from streams.security.modes import MODES
from streams.security.plain import PlainParty
from streams.security.transport import Link
from tests.support.installation import eventually
from tests.support.proxied import LOCAL, LOOPBACK, connected, dial_by, header, raw
from tests.support.tls import Echo, Parties, dial, echo

CLIENT, PORT = "192.0.2.7", 40_001


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Parties:
    return Parties(tmp_path_factory.mktemp("pki"))


class Probes:
    """Counts them."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self) -> None:
        self.seen += 1


async def hello(parties: Parties) -> bytes:
    """The first flight of a forwarder."""
    endpoint = stacks.client(MODES["hybrid"], parties.forwarder).endpoint("localhost")
    endpoint.handshake()
    return b"".join(endpoint.take())


async def refusal(server: Echo, first: bytes) -> str:
    """Why a connection that begins so was refused; it is closed by then."""
    sock, loop = await connected(server.listener.address), asyncio.get_running_loop()
    await loop.sock_sendall(sock, first)
    await eventually(lambda: server.failures, 30)
    try:
        async with asyncio.timeout(30):
            assert await loop.sock_recv(sock, 100) == b""
    except ConnectionError:
        pass
    sock.close()
    return server.failures[0].reason


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize(
    ("mode", "client", "peer"),
    [("hybrid", CLIENT, f"{CLIENT}:{PORT}"), ("kemtls", "2001:db8::7", f"[2001:db8::7]:{PORT}")],
)
def test_a_link_by_a_proxy_has_the_address_of_its_client(
    parties: Parties, mode: str, client: str, peer: str, run: Callable[[Coroutine[None, None, None]], None]
) -> None:
    async def talk() -> None:
        async with echo(parties.receiver, [mode], address="127.0.0.1:0", proxies=LOOPBACK) as server:
            party = stacks.client(MODES[mode], parties.forwarder)
            link = await dial_by(server.listener.address, header(client, PORT), party)
            link.write(b"hello")
            assert await link.receive() == b"hello"
            (far,) = server.links
            assert (far.host, far.peer) == (client, peer)
            assert far.facts.bytes_in == link.facts.bytes_out, "the header is no part of the handshake"
            await link.close()

    run(talk())


@pytest.mark.parametrize("pieces", [1, 700], ids=["byte by byte", "at once"])
async def test_header_and_hello_may_come_in_any_pieces(parties: Parties, pieces: int) -> None:
    first = header(CLIENT, PORT, tlvs=b"\x04\x00\x02no") + await hello(parties)
    async with echo(parties.receiver, ["hybrid"], address="127.0.0.1:0", proxies=LOOPBACK) as server:
        sock, loop = await connected(server.listener.address), asyncio.get_running_loop()
        for start in range(0, 100, pieces):
            await loop.sock_sendall(sock, first[start : start + pieces])
            await asyncio.sleep(0)
        await loop.sock_sendall(sock, first[100 if pieces == 1 else pieces :])
        async with asyncio.timeout(30):
            assert (await loop.sock_recv(sock, 3))[0] == 22, "a record of a handshake"
        (waiting,) = server.listener._pending._since
        assert waiting.heard_bytes == len(first)
        assert not server.failures
        sock.close()


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (b"\x16\x03\x01", "no_proxy_header"),
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 7443\r\n", "no_proxy_header"),
        (raw(0x21, 0x55, b""), "proxy_header"),
        (raw(0x21, 0x11, bytes(2000)), "proxy_header"),
    ],
)
async def test_a_connection_without_a_header_that_can_be_used_is_refused(
    parties: Parties, first: bytes, reason: str
) -> None:
    async with echo(parties.receiver, ["hybrid"], address="127.0.0.1:0", proxies=LOOPBACK) as server:
        assert await refusal(server, first) == reason
        assert not server.links


async def test_a_header_that_is_not_complete_in_time_is_refused(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(introduction, "HEADER_SECONDS", 0.1)
    async with echo(parties.receiver, ["hybrid"], address="127.0.0.1:0", proxies=LOOPBACK) as server:
        assert await refusal(server, header(CLIENT)[:-1]) == "no_proxy_header"


async def test_a_header_is_believed_from_the_named_proxies_alone(parties: Parties) -> None:
    elsewhere = [ip_network("10.0.0.0/8")]
    async with echo(parties.receiver, ["hybrid"], address="127.0.0.1:0", proxies=elsewhere) as server:
        assert await refusal(server, header(CLIENT)) == "not_a_proxy"
        with pytest.raises(LinkError):
            await dial(server, parties.forwarder, "hybrid", server_name="localhost")
        assert not server.links


async def test_a_listener_without_proxies_takes_no_header(parties: Parties) -> None:
    async with echo(parties.receiver, ["hybrid"], address="127.0.0.1:0") as server:
        assert await refusal(server, header(CLIENT)) == "not_tls"


async def test_a_handshake_takes_the_place_of_the_client_and_not_of_the_proxy(parties: Parties) -> None:
    async with echo(parties.receiver, ["hybrid"], address="127.0.0.1:0", proxies=LOOPBACK) as server:
        pending = server.listener._pending
        waiting = await connected(server.listener.address)
        await eventually(lambda: list(pending._by_source) == ["127.0.0.1"], 30)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(waiting, header("2001:db8::1:7"))
        await eventually(lambda: list(pending._by_source) == ["2001:db8::/64"], 30)
        waiting.close()
        await eventually(lambda: not len(pending), 30)


async def test_who_waits_for_a_header_makes_room_as_others_do(parties: Parties) -> None:
    async with echo(parties.receiver, ["hybrid"], address="127.0.0.1:0", proxies=LOOPBACK, max_pending=1) as server:
        first = await connected(server.listener.address)
        await eventually(lambda: len(server.listener._pending), 30)
        assert await refusal(server, b"") == "too_many_handshakes"
        first.close()


async def test_a_connection_of_the_proxy_itself_is_a_probe_however_it_ends(parties: Parties) -> None:
    probes, loop = Probes(), asyncio.get_running_loop()
    async with echo(parties.receiver, ["hybrid"], address="127.0.0.1:0", proxies=LOOPBACK, on_probe=probes) as server:
        for behind in (b"", b"GET / HTTP/1.0\r\n\r\n", (await hello(parties))[:100], await hello(parties)):
            sock = await connected(server.listener.address)
            await loop.sock_sendall(sock, LOCAL + behind)
            sock.close()
        await eventually(lambda: probes.seen == 4, 30)
        link = await dial_by(server.listener.address, LOCAL, stacks.client(MODES["hybrid"], parties.forwarder))
        link.write(b"hello")
        assert await link.receive() == b"hello"
        assert server.links[0].host == "127.0.0.1", "it may be a link all the same; certificates decide"
        await link.close()
        assert not server.failures


async def test_other_proxies_count_from_the_next_connection_on(parties: Parties) -> None:
    async with echo(parties.receiver, ["hybrid"], address="127.0.0.1:0", proxies=LOOPBACK) as server:
        party = stacks.client(MODES["hybrid"], parties.forwarder)
        link = await dial_by(server.listener.address, header(CLIENT), party)
        server.listener.limit(handshake_timeout=5, max_pending=10, trusted=(), proxies=None)
        direct = await dial_by(server.listener.address, b"", party)
        link.write(b"still here")
        assert await link.receive() == b"still here"
        await eventually(lambda: len(server.links) == 2)
        assert [far.host for far in server.links] == [CLIENT, "127.0.0.1"]
        await link.close()
        await direct.close()


async def test_a_listener_without_tls_can_be_behind_a_proxy() -> None:
    links: list[Link] = []

    async def serve(link: Link) -> None:
        links.append(link)
        link.write(await link.receive())
        await link.close()

    listener = await listen("127.0.0.1:0", PlainParty(), serve, on_failure=lambda *_: None, proxies=LOOPBACK)
    sock, loop = await connected(listener.address), asyncio.get_running_loop()
    await loop.sock_sendall(sock, header(CLIENT, PORT) + b"hello")
    async with asyncio.timeout(30):
        assert await loop.sock_recv(sock, 10) == b"hello"
    assert links[0].peer == f"{CLIENT}:{PORT}"
    sock.close()
    await listener.close()


PROBES: dict[str, Callable[[bytes], bytes]] = {
    "connect and close": lambda _: b"",
    "half a hello": lambda first: first[: len(first) // 2],
    "a byte": lambda first: first[:1],
}


@pytest.mark.parametrize("ending", ["close", "reset"])
@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("mode", ["hybrid", "kemtls"])
async def test_a_probe_is_no_failure(parties: Parties, mode: str, probe: str, ending: str) -> None:
    probes, loop = Probes(), asyncio.get_running_loop()
    first = PROBES[probe](await hello(parties))
    async with echo(parties.receiver, [mode], address="127.0.0.1:0", on_probe=probes) as server:
        sock = await connected(server.listener.address)
        await loop.sock_sendall(sock, first)
        await eventually(lambda: len(server.listener._pending), 30)
        if ending == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
        await eventually(lambda: probes.seen, 30)
        assert not server.failures


async def test_who_leaves_after_the_answer_to_its_hello_has_failed(parties: Parties) -> None:
    probes, loop = Probes(), asyncio.get_running_loop()
    async with echo(parties.receiver, ["hybrid"], address="127.0.0.1:0", on_probe=probes) as server:
        sock = await connected(server.listener.address)
        await loop.sock_sendall(sock, await hello(parties))
        async with asyncio.timeout(30):
            await loop.sock_recv(sock, 1)
        sock.close()
        assert (await server.failure()).reason == "disconnected"
        assert not probes.seen
