"""After the handshake: key updates, tickets, alerts, goodbyes, ends without one, and the bounds on all of them."""

from __future__ import annotations

import pytest

from streams.errors import HandshakeFailed, LinkError
from streams.security.endpoint import Credentials
from streams.security.tls13 import records
from streams.security.tls13.alerts import Abort, Alert
from streams.security.tls13.codec import vector
from streams.security.tls13.endpoint import READ_BYTES
from streams.security.tls13.endpoint import Tls13Endpoint as Endpoint
from streams.security.tls13.handshake import MAX_TICKETS
from streams.security.tls13.messages import encode_key_update, message
from streams.security.tls13.names import ContentType, HandshakeType
from tests.streams.security.tls13.support import (
    Authority,
    carry,
    connect,
    exchange,
    openssl_client,
    openssl_server,
    our_client,
    our_server,
    received,
)

TICKET = message(HandshakeType.NEW_SESSION_TICKET, bytes(8) + vector(1, b"n") + vector(2, b"ticket") + b"\0\0")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Credentials, Credentials]:
    directory, authority = tmp_path_factory.mktemp("pki"), Authority()
    return authority.issue(directory / "client", names=["spiffe://test/a"]), authority.issue(directory / "server")


@pytest.fixture
def opened(both: tuple[Credentials, Credentials]) -> tuple[Endpoint, Endpoint]:
    client, server = our_client(both[0], groups=("X25519",)), our_server(both[1])
    connect(client, server)
    return client, server


def say(one: Endpoint, other: Endpoint, content: bytes, kind: int = ContentType.HANDSHAKE) -> None:
    """A record that no method of an endpoint would send."""
    one._writer.write(kind, content)
    carry(one, other)


def refusal(endpoint: Endpoint) -> Alert:
    """The alert that reading what has come leads to; it is sent, and stays the answer."""
    for _ in range(2):
        with pytest.raises(HandshakeFailed) as caught:
            received(endpoint)
    assert isinstance(caught.value.__cause__, Abort)
    assert endpoint.take()
    with pytest.raises(LinkError):
        endpoint.write(b"more")
    return caught.value.__cause__.alert


# -- key updates -------------------------------------------------------------------------------------------------


def test_keys_change_when_they_are_worn(opened: tuple[Endpoint, Endpoint], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "UPDATE_RECORDS", 3)
    for one, other in (opened, opened[::-1]):
        for number in range(20):
            one.write(b"%d" % number)
            carry(one, other)
            assert received(other) == b"%d" % number
        assert one._writer.records < 20


def test_openssl_follows_our_key_updates(
    both: tuple[Credentials, Credentials], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "UPDATE_RECORDS", 3)
    client, server = our_client(both[0]), our_server(both[1])
    foreign_client = openssl_client(both[0], "X25519MLKEM768")
    foreign_server = openssl_server(both[1], "X25519MLKEM768")
    connect(client, foreign_server)
    connect(foreign_client, server)
    for one, other in ((client, foreign_server), (server, foreign_client)):
        for number in range(20):
            one.write(b"%d" % number)
            carry(one, other)
            assert received(other) == b"%d" % number
        assert one._writer.records < 20
    exchange(client, foreign_server)
    exchange(foreign_client, server)


def test_many_requests_are_answered_once_before_the_next_write(opened: tuple[Endpoint, Endpoint]) -> None:
    client, server = opened
    for number in range(50):
        say(client, server, encode_key_update(request=number < 49))  # the last asks for nothing, and takes nothing back
        client._writer.update()
    assert received(server) == b""
    assert server.take() == []
    server.write(b"answer")
    parts = server.take()
    assert len(parts) == 2
    for part in parts:
        client.feed(part)
    assert received(client) == b"answer"
    server.write(b"more")
    assert carry(server, client) == 5 + 4 + 1 + 16
    assert received(client) == b"more"
    client.write(b"still there")
    carry(client, server)
    assert received(server) == b"still there"


def test_an_update_that_was_not_requested_is_not_answered(opened: tuple[Endpoint, Endpoint]) -> None:
    client, server = opened
    say(client, server, encode_key_update(request=False))
    client._writer.update()
    client.write(b"new key")
    carry(client, server)
    assert received(server) == b"new key"
    server.write(b"old key")
    assert len(server.take()) == 1


@pytest.mark.parametrize(
    ("content", "alert"),
    [
        (b"\x18\0\0\1\2", Alert.ILLEGAL_PARAMETER),
        (b"\x18\0\0\0", Alert.DECODE_ERROR),
        (b"\x18\0\0\2\0\0", Alert.DECODE_ERROR),
        (encode_key_update(request=False) * 2, Alert.UNEXPECTED_MESSAGE),
        (encode_key_update(request=False) + b"\x18", Alert.UNEXPECTED_MESSAGE),
    ],
)
def test_a_key_update_is_refused(content: bytes, alert: Alert, opened: tuple[Endpoint, Endpoint]) -> None:
    client, server = opened
    say(client, server, content)
    assert refusal(server) == alert


def test_data_under_the_old_key_after_an_update_does_not_authenticate(opened: tuple[Endpoint, Endpoint]) -> None:
    client, server = opened
    say(client, server, encode_key_update(request=False))
    client.write(b"old key")
    carry(client, server)
    assert refusal(server) == Alert.BAD_RECORD_MAC


# -- tickets and other messages ------------------------------------------------------------------------------------


def test_tickets_are_dropped_amid_data_and_too_many_are_refused(opened: tuple[Endpoint, Endpoint]) -> None:
    client, server = opened
    for number in range(MAX_TICKETS):
        say(server, client, TICKET)
        server.write(b"%d." % number)
    carry(server, client)
    assert received(client).count(b".") == MAX_TICKETS
    say(server, client, TICKET)
    assert refusal(client) == Alert.UNEXPECTED_MESSAGE


def test_a_malformed_ticket_is_a_decode_error(opened: tuple[Endpoint, Endpoint]) -> None:
    client, server = opened
    say(server, client, b"\4\0\0\1x")
    assert refusal(client) == Alert.DECODE_ERROR


@pytest.mark.parametrize("kind", [*HandshakeType, 0, 5, 30, 255])
@pytest.mark.parametrize("side", ["client", "server"])
def test_every_other_message_is_unexpected(side: str, kind: int, opened: tuple[Endpoint, Endpoint]) -> None:
    client, server = opened
    allowed = {HandshakeType.KEY_UPDATE} | ({HandshakeType.NEW_SESSION_TICKET} if side == "client" else set())
    if kind in allowed:
        return
    one, other = (server, client) if side == "client" else (client, server)
    say(one, other, bytes((kind, 0, 0, 0)))
    assert refusal(other) == Alert.UNEXPECTED_MESSAGE


def test_data_amid_a_handshake_message_is_unexpected(opened: tuple[Endpoint, Endpoint]) -> None:
    client, server = opened
    say(server, client, TICKET[:10])
    server.write(b"data")
    carry(server, client)
    assert refusal(client) == Alert.UNEXPECTED_MESSAGE


def test_change_cipher_spec_after_the_handshake_is_unexpected(opened: tuple[Endpoint, Endpoint]) -> None:
    for one in opened:
        one.feed(b"\x14\3\3\0\1\1")
        assert refusal(one) == Alert.UNEXPECTED_MESSAGE


# -- ends --------------------------------------------------------------------------------------------------------


def test_after_the_peers_goodbye_nothing_more_is_read(opened: tuple[Endpoint, Endpoint]) -> None:
    client, server = opened
    client.write(b"last")
    client.close()
    client.close()
    carry(client, server)
    assert server.read() == b"last"
    assert server.read() is None
    server.feed(b"anything")
    server.feed_eof()
    assert server.read() is None
    with pytest.raises(LinkError, match="not open"):
        client.write(b"after")
    server.write(b"the other direction is still open")
    carry(server, client)
    assert received(client) == b"the other direction is still open"


def test_an_end_without_goodbye_is_a_cut_after_what_came(opened: tuple[Endpoint, Endpoint]) -> None:
    client, server = opened
    client.write(b"whole")
    client.write(b"cut short")
    whole, cut = client.take()
    server.feed(bytes(whole) + bytes(cut[:-1]))
    server.feed_eof()
    assert server.read() == b"whole"
    with pytest.raises(LinkError, match="without a close_notify") as caught:
        server.read()
    assert not isinstance(caught.value, HandshakeFailed)


def test_an_alert_of_any_level_ends_the_connection(opened: tuple[Endpoint, Endpoint]) -> None:
    client, server = opened
    client.write(b"before")
    say(client, server, bytes((1, Alert.INTERNAL_ERROR)), ContentType.ALERT)
    assert server.read() == b"before"
    with pytest.raises(HandshakeFailed) as caught:
        server.read()
    assert (caught.value.reason, caught.value.alert) == ("alert_received", "internal error")
    assert server.take() == []
    say(server, client, bytes((2, 222)), ContentType.ALERT)
    with pytest.raises(HandshakeFailed, match="number 222"):
        client.read()


def test_user_canceled_alone_changes_nothing(opened: tuple[Endpoint, Endpoint]) -> None:
    client, server = opened
    say(client, server, bytes((1, Alert.USER_CANCELED)), ContentType.ALERT)
    client.write(b"and yet")
    client.close()
    carry(client, server)
    assert server.read() == b"and yet"
    assert server.read() is None


def test_user_canceled_again_and_again_is_unexpected(opened: tuple[Endpoint, Endpoint]) -> None:
    client, server = opened
    for _ in range(5):
        say(client, server, bytes((1, Alert.USER_CANCELED)), ContentType.ALERT)
    assert refusal(server) == Alert.UNEXPECTED_MESSAGE


@pytest.mark.parametrize("content", [b"\2", b"\2\x28\2\x28"])
def test_an_alert_of_another_length_is_a_decode_error(content: bytes, opened: tuple[Endpoint, Endpoint]) -> None:
    client, server = opened
    say(client, server, content, ContentType.ALERT)
    assert refusal(server) == Alert.DECODE_ERROR


def test_a_spoiled_record_is_bad_record_mac_on_both_sides_after_what_came(opened: tuple[Endpoint, Endpoint]) -> None:
    client, server = opened
    client.write(b"good")
    client.write(b"spoiled")
    good, spoiled = client.take()
    spoiled = bytearray(spoiled)
    spoiled[-1] ^= 1
    server.feed(bytes(good) + bytes(spoiled))
    assert server.read() == b"good"
    with pytest.raises(HandshakeFailed, match="does not authenticate"):
        server.read()
    carry(server, client)
    with pytest.raises(HandshakeFailed) as caught:
        client.read()
    assert caught.value.alert == "bad record mac"


def test_nothing_is_written_before_the_handshake_is_complete(both: tuple[Credentials, Credentials]) -> None:
    client = our_client(both[0])
    with pytest.raises(LinkError):
        client.write(b"too early")
    client.close()
    assert client.take() == []


def test_data_before_the_handshake_is_complete_is_refused_and_never_read(
    both: tuple[Credentials, Credentials],
) -> None:
    """Under the handshake's keys a peer that has not authenticated yet could send it."""
    client, server = our_client(both[0], groups=("X25519",)), our_server(both[1])
    writer, write = client._writer, client._writer.write
    data = ContentType.APPLICATION_DATA
    writer.write = lambda kind, content: write(data if writer.protected else kind, content)  # type: ignore[method-assign]
    for one, other in ((client, server), (server, client), (client, server)):
        one.handshake()
        carry(one, other)
    assert server.read() == b""
    with pytest.raises(HandshakeFailed, match="data during the handshake"):
        server.handshake()


def test_reads_are_bounded_and_nothing_is_lost(opened: tuple[Endpoint, Endpoint]) -> None:
    client, server = opened
    text = bytes(range(256)) * 4096
    client.write(text)
    for size in (1, 5000, 16384, 1):
        client.write(text[:size])
    carry(client, server)
    parts = []
    while part := server.read():
        assert len(part) <= READ_BYTES
        parts.append(part)
    assert b"".join(parts) == text + text[:1] + text[:5000] + text[:16384] + text[:1]
    assert server._reader.waiting == 0


def test_an_empty_write_sends_nothing(opened: tuple[Endpoint, Endpoint]) -> None:
    opened[0].write(b"")
    assert opened[0].take() == []
