"""A hostile network or peer, with handshakes of our own stack on both sides.

Messages are changed before they are sealed, as only a peer could, after the sender has taken them into its transcript;
the handshake never completes on both sides.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial

import pytest

from streams.errors import HandshakeFailed
from streams.security.endpoint import Credentials
from streams.security.tls13.alerts import Abort, Alert
from streams.security.tls13.endpoint import Tls13Endpoint as Endpoint
from streams.security.tls13.names import HandshakeType
from tests.streams.security.tls13.support import Authority, connect, our_client, our_server
from tests.streams.security.tls13.tampering import Change, instead, outcome, replaced, spoil


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Credentials, Credentials]:
    directory, authority = tmp_path_factory.mktemp("pki"), Authority()
    return authority.issue(directory / "client", names=["spiffe://test/a"]), authority.issue(directory / "server")


def ends(both: tuple[Credentials, Credentials], *, retry: bool = False) -> tuple[Endpoint, Endpoint]:
    """A classical handshake, whose messages are short; with a HelloRetryRequest if wanted."""
    if retry:
        return our_client(both[0], groups=("X25519", "secp256r1")), our_server(both[1], groups=("secp256r1",))
    return our_client(both[0], groups=("X25519",)), our_server(both[1], groups=("X25519",))


def messages_of(both: tuple[Credentials, Credentials], *, retry: bool) -> dict[str, list[bytes]]:
    """What each side sends in an honest handshake."""
    client, server = ends(both, retry=retry)
    seen: dict[str, list[bytes]] = {"client": [], "server": []}

    def noting(name: str) -> Change:
        def note(_: int, messages: list[bytes]) -> list[bytes]:
            seen[name] += messages
            return messages

        return note

    spoil(client, noting("client"))
    spoil(server, noting("server"))
    connect(client, server)
    return seen


@pytest.mark.parametrize("retry", [False, True])
@pytest.mark.parametrize("side", ["client", "server"])
def test_no_handshake_survives_a_change_of_any_byte(
    side: str, retry: bool, both: tuple[Credentials, Credentials]
) -> None:
    for number, honest in enumerate(messages_of(both, retry=retry)[side]):
        for at in range(len(honest)):

            def flip(message: bytes, at: int = at) -> list[bytes]:
                position = at % len(message)  # an ECDSA signature may be shorter this time
                return [message[:position] + bytes((message[position] ^ (1 << at % 8),)) + message[position + 1 :]]

            client, server = ends(both, retry=retry)
            spoil({"client": client, "server": server}[side], replaced(number, flip))
            outcome(client, server)
            assert not (client.complete and server.complete), f"byte {at} of {side}'s message {number}"


@pytest.mark.parametrize("retry", [False, True])
@pytest.mark.parametrize("side", ["client", "server"])
def test_no_handshake_survives_a_message_left_out_or_repeated(
    side: str, retry: bool, both: tuple[Credentials, Credentials]
) -> None:
    changes: list[Callable[[bytes], list[bytes]]] = [
        lambda _: [],
        lambda message: [message, message],
        lambda message: [message + b"\0"],
        lambda message: [message[:-1]],
    ]
    for number in range(len(messages_of(both, retry=retry)[side])):
        for change in changes:
            client, server = ends(both, retry=retry)
            spoil({"client": client, "server": server}[side], replaced(number, change))
            outcome(client, server)
            assert not (client.complete and server.complete)


@pytest.mark.parametrize("side", ["client", "server"])
def test_each_message_out_of_place_is_unexpected(side: str, both: tuple[Credentials, Credentials]) -> None:
    """Every state of the receiving side, every type of message: a transition or unexpected_message."""
    also = {HandshakeType.CERTIFICATE_REQUEST: HandshakeType.CERTIFICATE}
    honest = messages_of(both, retry=False)[side]
    assert [HandshakeType(message[0]) for message in honest] == {
        "client": [1, 11, 15, 20],
        "server": [2, 8, 13, 11, 15, 20],
    }[side]
    for number, message in enumerate(honest):
        expected = HandshakeType(message[0])
        for kind in (*HandshakeType, 0, 3, 5, 25, 30, 255):
            if kind in (expected, also.get(expected)):
                continue
            client, server = ends(both)
            intruders = [bytes((kind, 0, 0, 0))]
            spoil({"client": client, "server": server}[side], replaced(number, partial(instead, intruders)))
            first = outcome(client, server)[0]
            assert isinstance(first.__cause__, Abort)
            assert first.__cause__.alert == Alert.UNEXPECTED_MESSAGE, f"{kind} instead of {expected.name}"


def test_a_wrong_finished_is_a_decrypt_error_and_one_of_another_length_a_decode_error(
    both: tuple[Credentials, Credentials],
) -> None:
    for side, number in (("client", 3), ("server", 5)):
        for change, alert in (
            (lambda message: [message[:-1] + bytes((message[-1] ^ 1,))], Alert.DECRYPT_ERROR),
            (lambda message: [b"\x14\0\0\x1f" + message[4:-1]], Alert.DECODE_ERROR),
            (lambda message: [b"\x14\0\0\x21" + message[4:] + b"\0"], Alert.DECODE_ERROR),
            (lambda _: [b"\x14\0\0\0"], Alert.DECODE_ERROR),
            (lambda message: [b"\x14\0\1\0" + message[4:]], Alert.DECODE_ERROR),
        ):
            client, server = ends(both)
            spoil({"client": client, "server": server}[side], replaced(number, change))
            first = outcome(client, server)[0]
            assert isinstance(first.__cause__, Abort)
            assert first.__cause__.alert == alert


def kinds_of_records(stream: bytes) -> list[int]:
    kinds = []
    while stream:
        kinds.append(stream[0])
        stream = stream[5 + int.from_bytes(stream[3:5]) :]
    return kinds


@pytest.mark.parametrize(
    ("retry", "of_client", "of_server"),
    [(False, [22, 20, 23], [22, 20, 23]), (True, [22, 20, 22, 23], [22, 20, 22, 23])],
)
def test_each_side_sends_one_change_cipher_spec_for_middleboxes(
    retry: bool, of_client: list[int], of_server: list[int], both: tuple[Credentials, Credentials]
) -> None:
    """Appendix D.4: a client before its second flight, a server after its first message."""
    client, server = ends(both, retry=retry)
    streams = {client: b"", server: b""}
    for _ in range(4):
        for one, other in ((client, server), (server, client)):
            if not one.complete:
                one.handshake()
            sent = b"".join(one.take())
            streams[one] += sent
            other.feed(sent)
    assert (kinds_of_records(streams[client]), kinds_of_records(streams[server])) == (of_client, of_server)


def test_the_other_side_hears_why(both: tuple[Credentials, Credentials]) -> None:
    client, server = ends(both)
    spoil(client, replaced(3, lambda message: [message[:-1] + bytes((message[-1] ^ 1,))]))
    refused, heard = outcome(client, server)
    assert (refused.reason, heard.reason, heard.alert) == ("tls_error", "alert_received", "decrypt error")


def test_a_message_after_the_last_of_its_key_is_unexpected(both: tuple[Credentials, Credentials]) -> None:
    for side, number in (("server", 0), ("server", 5), ("client", 3)):
        client, server = ends(both)
        spoil({"client": client, "server": server}[side], replaced(number, lambda message: [message, b"\x18\0\0\1\0"]))
        first = outcome(client, server)[0]
        assert isinstance(first.__cause__, Abort)
        assert first.__cause__.alert == Alert.UNEXPECTED_MESSAGE


@pytest.mark.parametrize(("side", "beginning"), [("server", b"\2"), ("client", b"\1")])
def test_the_beginning_of_the_next_message_with_a_retry_is_unexpected(
    side: str, beginning: bytes, both: tuple[Credentials, Credentials]
) -> None:
    """It is of the right type, but nobody can know it before the other side has answered."""
    client, server = ends(both, retry=True)
    spoil({"client": client, "server": server}[side], replaced(0, lambda message: [message, beginning]))
    first = outcome(client, server)[0]
    assert isinstance(first.__cause__, Abort)
    assert first.__cause__.alert == Alert.UNEXPECTED_MESSAGE


@pytest.mark.parametrize("side", ["client", "server"])
def test_no_handshake_survives_a_change_of_any_byte_on_the_wire(
    side: str, both: tuple[Credentials, Credentials]
) -> None:
    """Record headers included, but for the version that a receiver must ignore."""
    length = sum(len(message) + 40 for message in messages_of(both, retry=False)[side])
    for at in range(0, length, 3):
        client, server = ends(both)
        passed = 0
        ignored = False
        for _ in range(4):
            for name, one, other in (("client", client, server), ("server", server, client)):
                if not one.complete:
                    with contextlib.suppress(HandshakeFailed):
                        one.handshake()
                for part in one.take():
                    raw = bytearray(part)
                    if name == side and passed <= at < passed + len(raw):
                        ignored = at - passed in (1, 2) and raw[0] in (20, 22)
                        raw[at - passed] ^= 1
                    passed += len(raw) if name == side else 0
                    other.feed(raw)
        assert ignored or at >= passed or not (client.complete and server.complete)
