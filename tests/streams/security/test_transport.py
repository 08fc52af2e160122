"""Links over real sockets: which group a peer gets, which peers are refused and why, and what a bad one can do."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
from pathlib import Path

import msgspec
import pytest

from streams.errors import HandshakeFailed, LinkError
from streams.security import modes, pending, rotation, stacks, transport
from streams.security.connecting import connect
from streams.security.endpoint import ALPN, Credentials
from streams.security.openssl import context as openssl
from streams.security.openssl.groups import client_settings
from streams.security.openssl.party import OpenSSLParty
from streams.security.tls13.messages import encode_key_update
from tests.support.patience import PATIENCE_SECONDS
from tests.support.tls import FORWARDER, Parties, dial, echo

ALL = tuple(modes.MODES)


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Parties:
    return Parties(tmp_path_factory.mktemp("pki"))


@pytest.mark.parametrize("mode", ALL)
async def test_each_mode_gets_its_group_and_both_ends_see_it(parties: Parties, mode: str) -> None:
    (together,) = (port for port in stacks.by_port(modes.MODES.values()) if modes.MODES[mode] in port)
    async with echo(parties.receiver, [each.name for each in together]) as server:
        link = await dial(server, parties.forwarder, mode)
        link.write(b"hello")
        assert await link.receive() == b"hello"
        far = server.links[0]
        for facts in (link.facts, far.facts):
            modes.check(modes.MODES[mode], facts)
        assert link.facts.group == far.facts.group == modes.MODES[mode].groups[0]
        assert far.facts.identities == (FORWARDER,)
        assert (link.facts.bytes_in, link.facts.bytes_out) == (far.facts.bytes_out, far.facts.bytes_in)
        await link.close()


@pytest.mark.parametrize(
    ("serves", "asks"),
    [(serves, asks) for serves in ALL for asks in ALL if serves != asks and "preferred" not in serves + asks],
)
async def test_a_listener_of_one_mode_refuses_the_others_in_the_handshake(
    parties: Parties, serves: str, asks: str
) -> None:
    async with echo(parties.receiver, [serves]) as server:
        with pytest.raises(HandshakeFailed) as refused:
            link = await dial(server, parties.forwarder, asks)
            await link.receive()
        reason = (await server.failure()).reason
        if "kemtls-pdk" in (serves, asks):
            return  # which side misses what first depends on both
        if (serves, asks) == ("pq-auth", "kemtls"):  # it offers ML-DSA too, for leaves that delegate
            assert (refused.value.reason, reason) == ("no_shared_signature_algorithm", "alert_received")
            return
        assert refused.value.alert in ("handshake failure", "protocol version")
        assert reason in ("no_shared_group", "protocol_version", "no_shared_signature_algorithm")
        same_group = {serves, asks} < {"hybrid", "pq-auth", "kemtls"}
        assert (reason == "no_shared_signature_algorithm") is same_group


@pytest.mark.parametrize(("serves", "group"), [(["classical"], "X25519"), (["hybrid", "classical"], "X25519MLKEM768")])
async def test_hybrid_preferred_takes_the_best_that_the_receiver_has(
    parties: Parties, serves: list[str], group: str
) -> None:
    async with echo(parties.receiver, serves) as server:
        link = await dial(server, parties.forwarder, "hybrid-preferred")
        assert link.facts.group == group
        await link.close()


async def test_a_client_that_sends_only_a_classical_share_is_asked_for_the_hybrid_one(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    preferred = modes.MODES["hybrid-preferred"]
    lazy = msgspec.structs.replace(client_settings(preferred), groups="X25519MLKEM768:*X25519")
    monkeypatch.setattr(openssl, "client_settings", lambda _: lazy)
    async with echo(parties.receiver, ["hybrid", "classical"]) as server:
        link = await connect(server.listener.address, stacks.client(preferred, parties.forwarder))
        assert link.facts.group == "X25519MLKEM768"
        await link.close()


async def test_a_wrong_authority_is_named_on_the_refusing_side(parties: Parties, tmp_path: Path) -> None:
    stranger = Parties(tmp_path)
    async with echo(parties.receiver, ["hybrid"]) as server:
        with pytest.raises(HandshakeFailed) as refused:
            await dial(server, stranger.forwarder, "hybrid")
        assert refused.value.reason == "unknown_ca"
        assert (await server.failure()).alert == "unknown ca"
    forged = Credentials(stranger.forwarder.certificate, stranger.forwarder.key, parties.forwarder.ca)
    async with echo(parties.receiver, ["hybrid"]) as server:
        with pytest.raises(HandshakeFailed, match="unknown ca"):
            await (await dial(server, forged, "hybrid")).receive()
        assert (await server.failure()).reason == "unknown_ca"


@pytest.mark.parametrize("whose", ["receiver", "forwarder"])
async def test_an_expired_leaf_is_refused(parties: Parties, whose: str) -> None:
    long_ago = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=3)
    expired = parties.leaf(
        f"expired-{whose}", identities=["x"], hosts=["localhost"], role="both", days=1, not_before=long_ago, force=True
    )
    receiver = expired if whose == "receiver" else parties.receiver
    forwarder = expired if whose == "forwarder" else parties.forwarder
    async with echo(receiver, ["hybrid"]) as server:
        with pytest.raises(HandshakeFailed) as refused:
            await (await dial(server, forwarder, "hybrid")).receive()
        failure = await server.failure()
    ours, theirs = (refused.value, failure) if whose == "receiver" else (failure, refused.value)
    assert ours.reason == "certificate_expired"
    assert theirs.alert == "certificate expired"


async def test_a_wrong_host_name_is_refused_by_name_and_by_address(parties: Parties) -> None:
    async with echo(parties.receiver, ["hybrid"]) as server:
        for name in ("other.example", "127.0.0.2"):
            with pytest.raises(HandshakeFailed) as refused:
                await dial(server, parties.forwarder, "hybrid", server_name=name)
            assert refused.value.reason == "host_mismatch"
        link = await dial(server, parties.forwarder, "hybrid", server_name=str(ipaddress.ip_address("127.0.0.1")))
        await link.close()


async def test_a_client_without_a_certificate_is_refused(parties: Parties) -> None:
    bare = openssl.foreign_context(modes.MODES["hybrid"], parties.forwarder.ca)
    bare.set_alpn_protos([ALPN])
    async with echo(parties.receiver, ["hybrid"]) as server:
        with pytest.raises(HandshakeFailed) as refused:
            await (await connect(server.listener.address, OpenSSLParty(bare, accepting=False))).receive()
        assert refused.value.alert == "certificate required"
        assert (await server.failure()).reason == "no_client_certificate"


async def test_a_client_of_another_protocol_is_refused(parties: Parties) -> None:
    context = openssl.foreign_context(modes.MODES["hybrid"], parties.forwarder.ca, parties.forwarder)
    other = OpenSSLParty(context, accepting=False)
    async with echo(parties.receiver, ["hybrid"]) as server:
        with pytest.raises(HandshakeFailed, match="logfwd/1"):
            await connect(server.listener.address, other)
        assert (await server.failure()).reason in ("alpn", "disconnected")


async def test_bytes_that_are_not_tls_are_refused(parties: Parties) -> None:
    async with echo(parties.receiver, ["hybrid"]) as server:
        host, port = server.listener.address.split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert (await server.failure()).reason == "not_tls"
        writer.close()


async def test_a_peer_that_stays_silent_meets_a_deadline(parties: Parties) -> None:
    async with echo(parties.receiver, ["hybrid"], handshake_timeout=0.05) as server:
        host, port = server.listener.address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        assert (await server.failure()).reason == "timeout"
        assert await reader.read() == b""
        writer.close()


async def test_whoever_says_nothing_makes_room_for_others(parties: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "SILENT_SECONDS", 0.0)
    async with echo(parties.receiver, ["hybrid"], max_pending=2) as server:
        host, port = server.listener.address.rsplit(":", 1)
        silent = [await asyncio.open_connection(host, int(port)) for _ in range(2)]
        link = await dial(server, parties.forwarder, "hybrid")
        link.write(b"hello")
        assert await link.receive() == b"hello"
        assert await silent[0][0].read() == b""  # the oldest
        assert [failure.reason for failure in server.failures] == ["too_many_handshakes"]
        await link.close()
        for _, writer in silent:
            writer.close()


async def test_one_handshake_too_many_is_closed_at_once(parties: Parties) -> None:
    async with echo(parties.receiver, ["hybrid"], max_pending=1) as server:
        host, port = server.listener.address.rsplit(":", 1)
        _, first = await asyncio.open_connection(host, int(port))
        reader, second = await asyncio.open_connection(host, int(port))
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await reader.read() == b""
        assert [failure.reason for failure in server.failures] == ["too_many_handshakes"]
        first.close()
        second.close()


async def test_a_cut_link_is_distinguished_from_a_goodbye(parties: Parties) -> None:
    async with echo(parties.receiver, ["hybrid"]) as server:
        link = await dial(server, parties.forwarder, "hybrid")
        link.write(b"x")
        await link.receive()
        server.links[0].abort()
        with pytest.raises(LinkError):
            await link.receive()
        polite = await dial(server, parties.forwarder, "hybrid")
        polite.write(b"x")
        await polite.receive()
        closing = asyncio.create_task(server.links[1].close())
        assert await polite.receive() == b""
        await polite.close()
        await closing


async def test_much_data_goes_both_ways_in_bounded_memory(parties: Parties) -> None:
    block, count = bytes(range(256)) * 4096, 40
    async with echo(parties.receiver, ["hybrid"]) as server:
        link = await dial(server, parties.forwarder, "hybrid")

        async def send() -> None:
            for _ in range(count):
                link.write(block)
                await link.drain()

        sender, received = asyncio.create_task(send()), 0
        while received < count * len(block):
            data = await link.receive()
            assert len(data) <= 6 * 1024 * 1024
            received += len(data)
        await sender
        await link.close()


async def test_writing_waits_for_a_peer_that_does_not_read(parties: Parties) -> None:
    async with echo(parties.receiver, ["hybrid"]) as server:
        link = await dial(server, parties.forwarder, "hybrid")
        block = bytes(1024 * 1024)

        with pytest.raises(TimeoutError):
            for _ in range(64):
                link.write(block)
                async with asyncio.timeout(0.2):
                    await link.drain()
        link.abort()


async def test_a_new_certificate_serves_new_links_and_leaves_the_old_ones(parties: Parties) -> None:
    fresh = parties.leaf("fresh", identities=["receiver-2"], hosts=["localhost"], force=True)
    async with echo(parties.receiver, ["hybrid"]) as server:
        old = await dial(server, parties.forwarder, "hybrid")
        server.listener.replace(stacks.server([modes.MODES["hybrid"]], fresh))
        new = await dial(server, parties.forwarder, "hybrid")
        assert "receiver" in old.facts.identities
        assert "receiver-2" in new.facts.identities
        old.write(b"still here")
        assert await old.receive() == b"still here"
        await old.close()
        await new.close()


async def test_rotation_is_due_after_its_limits(parties: Parties) -> None:
    async with echo(parties.receiver, ["hybrid"]) as server:
        link = await dial(server, parties.forwarder, "hybrid")
        assert not link.should_rotate()
        link.bytes_sent = 128 << 30
        assert link.should_rotate()
        await link.close()


async def test_a_link_that_renews_its_keys_is_replaced_for_its_age_alone(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.security.tls13.records.UPDATE_BYTES", 1)
    updates: list[bytes] = []

    def encode(*, request: bool) -> bytes:
        updates.append(encode_key_update(request=request))
        return updates[-1]

    monkeypatch.setattr("streams.security.tls13.handshake.encode_key_update", encode)
    async with echo(parties.receiver, ["kemtls"]) as server:
        link = await dial(server, parties.forwarder, "kemtls")
        for number in range(3):
            link.write(b"%d" % number)
            assert await link.receive() == b"%d" % number
        assert len(updates) == 4, "each side changes its key before its second and its third write"
        link.bytes_sent, link.records_sent = 128 << 30, 1 << 30
        assert not link.should_rotate()
        monkeypatch.setattr(rotation, "ROTATE_SECONDS", 0.0)
        assert link.should_rotate()
        await link.close()


@pytest.mark.parametrize("host", ["logs..example.net", f"{'a' * 64}.example.net"])
async def test_a_host_that_cannot_be_a_name_is_a_link_error(parties: Parties, host: str) -> None:
    party = stacks.client(modes.MODES["hybrid"], parties.forwarder)
    with pytest.raises(LinkError, match="cannot connect"):
        await connect(f"{host}:7443", party)
    async with echo(parties.receiver, ["hybrid"]) as server:
        with pytest.raises(LinkError, match="cannot be a host name"):
            await dial(server, parties.forwarder, "hybrid", server_name=host)


async def test_an_address_in_use_is_reported_in_one_line(parties: Parties) -> None:
    async with echo(parties.receiver, ["hybrid"]) as server:
        with pytest.raises(LinkError, match="cannot listen there"):
            async with echo(parties.receiver, ["hybrid"], address=server.listener.address):
                pass


async def test_nobody_there_is_a_link_error_with_the_address(parties: Parties) -> None:
    with pytest.raises(LinkError, match=r"127\.0\.0\.1:1"):
        await connect("127.0.0.1:1", stacks.client(modes.MODES["hybrid"], parties.forwarder))


async def test_a_host_that_swallows_connections_meets_a_deadline(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def swallow(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", swallow)
    async with asyncio.timeout(PATIENCE_SECONDS):
        with pytest.raises(LinkError, match=r"127\.0\.0\.1:1: no connection within 0\.05 s"):
            await connect("127.0.0.1:1", stacks.client(modes.MODES["hybrid"], parties.forwarder), connect_timeout=0.05)


async def test_closing_does_not_wait_for_a_peer_that_never_closes(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "CLOSE_SECONDS", 0.05)
    async with echo(parties.receiver, ["hybrid"]) as server:
        link = await dial(server, parties.forwarder, "hybrid")
        link.write(b"x")
        await link.receive()
        far = server.links[0]
        far._transport.pause_reading()  # type: ignore[union-attr]
        while not link.held_up:  # what is not sent keeps the connection open
            link.write(bytes(1024 * 1024))
            await asyncio.sleep(0)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await link.close()
