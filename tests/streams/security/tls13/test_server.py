"""What a server makes of a ClientHello, a first and a second one: each refusal by its alert."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from streams.errors import HandshakeFailed
from streams.security.endpoint import Credentials
from streams.security.tls13 import extensions as ext
from streams.security.tls13.alerts import Abort, Alert
from streams.security.tls13.endpoint import Tls13Endpoint as Endpoint
from streams.security.tls13.groups import GROUP_CODES, GROUPS
from streams.security.tls13.messages import ClientHello, parse_server_hello
from streams.security.tls13.names import TLS13, Extension
from streams.security.tls13.schemes import SCHEME_CODES
from streams.security.tls13.server import choose
from tests.streams.security.tls13.support import ALPN, Authority, our_server, settings

X25519, HYBRID, P256 = (GROUP_CODES[name] for name in ("X25519", "X25519MLKEM768", "secp256r1"))
ECDSA = SCHEME_CODES["ecdsa_secp256r1_sha256"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Credentials:
    return Authority().issue(tmp_path_factory.mktemp("pki"))


def share(group: int) -> tuple[int, bytes]:
    return group, GROUPS[group].generate().share


def hello(changes: dict[int, bytes | None] | None = None, **fields: Any) -> ClientHello:
    """One that a server takes, unless changed; None leaves an extension out."""
    offered: dict[int, bytes] = {
        Extension.SUPPORTED_GROUPS: ext.encode_numbers([X25519]),
        Extension.SIGNATURE_ALGORITHMS: ext.encode_numbers([ECDSA]),
        Extension.ALPN: ext.encode_protocols([ALPN]),
        Extension.SUPPORTED_VERSIONS: ext.encode_offered_versions([TLS13]),
        Extension.KEY_SHARE: ext.encode_shares([share(X25519)]),
    }
    for kind, body in (changes or {}).items():
        offered.pop(kind, None)
        if body is not None:
            offered[kind] = body
    whole = ClientHello(random=bytes(32), session_id=bytes(32), suites=(0x1301,), extensions=offered)
    return msgspec.structs.replace(whole, **fields)


def fed(server: Endpoint, message: bytes) -> None:
    server.feed(b"\x16\3\1" + len(message).to_bytes(2) + message)
    server.handshake()


def refusal(server: Endpoint, message: bytes) -> HandshakeFailed:
    """Refused, and the alert that is sent is the one in the exception's cause."""
    with pytest.raises(HandshakeFailed) as caught:
        fed(server, message)
    assert isinstance(caught.value.__cause__, Abort)
    assert b"".join(server.take()).endswith(b"\x15\3\3\0\2\2" + bytes((caught.value.__cause__.alert,)))
    with pytest.raises(HandshakeFailed):
        server.handshake()
    return caught.value


def alert_of(error: HandshakeFailed) -> Alert:
    assert isinstance(error.__cause__, Abort)
    return error.__cause__.alert


PSK = b"\0\x26" + b"\0\x20" + bytes(32) + bytes(4) + b"\0\x21\x20" + bytes(32)
REFUSED: dict[str, tuple[ClientHello, Alert, str]] = {
    "of TLS 1.2": (hello({Extension.SUPPORTED_VERSIONS: None}), Alert.PROTOCOL_VERSION, "protocol_version"),
    "of versions below 1.3": (
        hello({Extension.SUPPORTED_VERSIONS: b"\4\3\3\3\2"}),
        Alert.PROTOCOL_VERSION,
        "protocol_version",
    ),
    "of SSL 3.0": (hello(version=0x0300), Alert.PROTOCOL_VERSION, "protocol_version"),
    "with compression": (hello(compression=b"\1\0"), Alert.ILLEGAL_PARAMETER, "tls_error"),
    "without groups": (hello({Extension.SUPPORTED_GROUPS: None}), Alert.MISSING_EXTENSION, "tls_error"),
    "without schemes": (hello({Extension.SIGNATURE_ALGORITHMS: None}), Alert.MISSING_EXTENSION, "tls_error"),
    "without shares": (hello({Extension.KEY_SHARE: None}), Alert.MISSING_EXTENSION, "tls_error"),
    "with no suite of ours": (hello(suites=(0x1304, 0xC02B)), Alert.HANDSHAKE_FAILURE, "no_shared_group"),
    "with no group of ours": (
        hello({Extension.SUPPORTED_GROUPS: b"\0\2\0\x18", Extension.KEY_SHARE: b"\0\0"}),
        Alert.HANDSHAKE_FAILURE,
        "no_shared_group",
    ),
    "with no scheme of our key": (
        hello({Extension.SIGNATURE_ALGORITHMS: ext.encode_numbers([0x0804, 0x0905])}),
        Alert.HANDSHAKE_FAILURE,
        "no_shared_signature_algorithm",
    ),
    "for another protocol": (
        hello({Extension.ALPN: ext.encode_protocols([b"h2"])}),
        Alert.NO_APPLICATION_PROTOCOL,
        "alpn",
    ),
    "for no protocol": (hello({Extension.ALPN: None}), Alert.NO_APPLICATION_PROTOCOL, "alpn"),
    "with a share of a group not offered": (
        hello({Extension.KEY_SHARE: ext.encode_shares([share(P256)])}),
        Alert.ILLEGAL_PARAMETER,
        "tls_error",
    ),
    "with an empty share": (
        hello({Extension.KEY_SHARE: ext.encode_shares([(X25519, b"")])}),
        Alert.ILLEGAL_PARAMETER,
        "tls_error",
    ),
    "with two shares of a group": (
        hello({Extension.KEY_SHARE: ext.encode_shares([share(X25519), share(X25519)])}),
        Alert.ILLEGAL_PARAMETER,
        "tls_error",
    ),
    "with a low-order share": (
        hello({Extension.KEY_SHARE: ext.encode_shares([(X25519, bytes(32))])}),
        Alert.ILLEGAL_PARAMETER,
        "tls_error",
    ),
    "with a PSK that is not last": (
        hello({Extension.PRE_SHARED_KEY: PSK, Extension.PSK_KEY_EXCHANGE_MODES: b"\1\1"}),
        Alert.ILLEGAL_PARAMETER,
        "tls_error",
    ),
    "with a PSK without modes": (hello({Extension.PRE_SHARED_KEY: PSK}), Alert.MISSING_EXTENSION, "tls_error"),
    "with a malformed server name": (hello({Extension.SERVER_NAME: b"\0"}), Alert.DECODE_ERROR, "tls_error"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_hello_is_refused(case: str, files: Credentials) -> None:
    sent, alert, reason = REFUSED[case]
    error = refusal(our_server(files), sent.encode())
    assert (alert_of(error), error.reason) == (alert, reason)


def test_a_hello_with_what_this_stack_does_not_know_is_answered(files: Credentials) -> None:
    unknown: dict[int, bytes | None] = {
        0x3A3A: b"\0",
        Extension.EARLY_DATA: b"",
        Extension.COOKIE: b"\0\1c",
        Extension.SERVER_NAME: ext.encode_server_name(b"elsewhere"),
        Extension.SUPPORTED_GROUPS: ext.encode_numbers([0x6A6A, X25519]),
        Extension.SUPPORTED_VERSIONS: ext.encode_offered_versions([0x7A7A, TLS13, 0x0303]),
    }
    server = our_server(files)
    fed(server, hello(unknown, suites=(0x5A5A, 0xC02B, 0x1303, 0x1302)).encode())
    answer = parse_server_hello(b"".join(server.take())[9 : 9 + 118])
    assert (answer.suite, answer.session_id) == (0x1302, bytes(32))
    assert set(answer.extensions) == {Extension.SUPPORTED_VERSIONS, Extension.KEY_SHARE}


def test_a_server_that_demands_no_protocol_takes_any(files: Credentials) -> None:
    for offered in (None, ext.encode_protocols([b"h2"])):
        choice = choose(hello({Extension.ALPN: offered}), settings(files, alpn=None))
        assert choice.alpn is None


@pytest.mark.parametrize(
    ("groups", "shares", "chosen", "asks"),
    [
        ((X25519, HYBRID), (X25519,), HYBRID, True),
        ((X25519, HYBRID), (X25519, HYBRID), HYBRID, False),
        ((X25519, P256), (P256,), P256, False),
        ((P256, X25519), (), X25519, True),
        ((P256,), (), P256, True),
    ],
)
def test_a_hybrid_group_is_worth_asking_for_and_a_classical_one_is_taken_as_it_comes(
    groups: tuple[int, ...], shares: tuple[int, ...], chosen: int, asks: bool, files: Credentials
) -> None:
    offer = hello(
        {
            Extension.SUPPORTED_GROUPS: ext.encode_numbers(groups),
            Extension.KEY_SHARE: ext.encode_shares([share(group) for group in shares]),
        }
    )
    choice = choose(offer, settings(files))
    assert choice.group == chosen
    assert (choice.share is None) == asks


# -- the second hello --------------------------------------------------------------------------------------------

BOTH = ext.encode_numbers([X25519, HYBRID])


def asked_again(files: Credentials, **fields: Any) -> tuple[Endpoint, ClientHello]:
    """A server that has sent a HelloRetryRequest for the hybrid group."""
    server, first = our_server(files), hello({Extension.SUPPORTED_GROUPS: BOTH}, **fields)
    fed(server, first.encode())
    sent = b"".join(server.take())
    size = int.from_bytes(sent[3:5])
    retry = parse_server_hello(sent[9 : 5 + size])
    assert retry.retry
    assert retry.extensions[Extension.KEY_SHARE] == HYBRID.to_bytes(2)
    assert sent[5 + size :] == (b"\x14\3\3\0\1\1" if first.session_id else b"")
    return server, first


def with_share(first: ClientHello, **changes: bytes | None) -> dict[int, bytes]:
    """The first hello's extensions with a hybrid share and these changes, in the same order."""
    offered = dict(first.extensions)
    offered[Extension.KEY_SHARE] = ext.encode_shares([share(HYBRID)])
    for name, body in changes.items():
        kind = Extension[name]
        if body is None:
            del offered[kind]
        else:
            offered[kind] = body
    return offered


@pytest.mark.parametrize("session_id", [b"", bytes(32)])
def test_a_second_hello_with_the_share_and_less_early_data_and_padding_is_taken(
    session_id: bytes, files: Credentials
) -> None:
    server, first = asked_again(files, session_id=session_id)
    changed = with_share(first, PADDING=bytes(100))
    fed(server, msgspec.structs.replace(first, extensions=changed).encode())
    sent = b"".join(server.take())
    assert not parse_server_hello(sent[9 : 5 + int.from_bytes(sent[3:5])]).retry
    assert b"\x14\3\3\0\1\1" not in sent


@pytest.mark.parametrize(
    "fields",
    [
        {"random": b"\1" * 32},
        {"session_id": b"\1" * 32},
        {"suites": (0x1301, 0x1302)},
        {"suites": (0x1302,)},
        {"version": 0x0302},
    ],
)
def test_a_second_hello_with_another_field_is_illegal(fields: dict[str, Any], files: Credentials) -> None:
    server, first = asked_again(files)
    second = msgspec.structs.replace(first, extensions=with_share(first), **fields)
    assert alert_of(refusal(server, second.encode())) == Alert.ILLEGAL_PARAMETER


@pytest.mark.parametrize(
    "changes",
    [
        {"COOKIE": b"\0\1c"},
        {"SERVER_NAME": ext.encode_server_name(b"other")},
        {"SIGNATURE_ALGORITHMS": ext.encode_numbers([ECDSA, 0x0804])},
        {"KEY_SHARE": ext.encode_shares([share(X25519)])},
        {"KEY_SHARE": ext.encode_shares([share(X25519), share(HYBRID)])},
        {"KEY_SHARE": b"\0\0"},
        {"SUPPORTED_GROUPS": ext.encode_numbers([HYBRID, X25519])},
    ],
)
def test_a_second_hello_with_another_extension_is_illegal(changes: dict[str, bytes], files: Credentials) -> None:
    server, first = asked_again(files)
    second = msgspec.structs.replace(first, extensions=with_share(first, **changes))
    assert alert_of(refusal(server, second.encode())) == Alert.ILLEGAL_PARAMETER


def test_a_second_hello_in_another_order_is_illegal(files: Credentials) -> None:
    server, first = asked_again(files)
    turned = dict(reversed(with_share(first).items()))
    second = msgspec.structs.replace(first, extensions=turned)
    assert alert_of(refusal(server, second.encode())) == Alert.ILLEGAL_PARAMETER


# -- before and around the hello -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"GET / HTTP/1.1\r\n\r\n", "not_tls"), (b"\x80\x2e\1\3\1", "not_tls"), (b"\x14\3\3\0\1\1", "tls_error")],
)
def test_bytes_that_are_not_a_hello_are_refused_at_once(data: bytes, reason: str, files: Credentials) -> None:
    server = our_server(files)
    server.feed(data)
    with pytest.raises(HandshakeFailed) as caught:
        server.handshake()
    assert caught.value.reason == reason


def test_a_hello_that_announces_too_many_bytes_is_refused_by_its_header(files: Credentials) -> None:
    assert alert_of(refusal(our_server(files), b"\1\2\0\1")) == Alert.DECODE_ERROR


def test_a_hello_may_come_in_many_records(files: Credentials) -> None:
    server, message = our_server(files), hello().encode()
    for at in range(0, len(message), 7):
        fed(server, message[at : at + 7])
    assert server.take()
    assert not server.complete


def test_a_record_of_another_type_amid_a_message_is_unexpected(files: Credentials) -> None:
    for intruder in (b"\x15\3\3\0\2\1\0", b"\x17\3\3\0\1\0"):
        server = our_server(files)
        fed(server, hello().encode()[:50])
        server.feed(intruder)
        with pytest.raises(HandshakeFailed) as caught:
            server.handshake()
        assert alert_of(caught.value) == Alert.UNEXPECTED_MESSAGE


def test_a_message_after_the_hello_in_its_record_is_unexpected(files: Credentials) -> None:
    with pytest.raises(HandshakeFailed) as caught:
        fed(our_server(files), hello().encode() + b"\1")
    assert alert_of(caught.value) == Alert.UNEXPECTED_MESSAGE


def test_a_goodbye_during_the_handshake_is_a_disconnect_and_the_end(files: Credentials) -> None:
    server, message = our_server(files), hello().encode()
    server.feed(b"\x15\3\3\0\2\1\0" + b"\x16\3\1" + len(message).to_bytes(2) + message)
    with pytest.raises(HandshakeFailed) as caught:
        server.handshake()
    assert caught.value.reason == "disconnected"
    assert server.take() == []


def test_the_end_of_the_bytes_during_the_handshake_is_a_disconnect(files: Credentials) -> None:
    server = our_server(files)
    server.feed_eof()
    with pytest.raises(HandshakeFailed) as caught:
        server.handshake()
    assert caught.value.reason == "disconnected"
