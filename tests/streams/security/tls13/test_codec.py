"""Bytes from the network become messages or a typed error with the right alert; what was parsed encodes to the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.security.tls13 import extensions as ext
from streams.security.tls13 import messages as m
from streams.security.tls13.alerts import Abort, Alert, alert_name
from streams.security.tls13.codec import Reader, u16s, vector
from streams.security.tls13.names import RETRY_RANDOM, HandshakeType

EXTENSIONS = st.dictionaries(st.integers(0, 0xFFFF), st.binary(max_size=40), max_size=6)
SUITES = st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=20).map(tuple)
RANDOM = st.binary(min_size=32, max_size=32)
SESSION_ID = st.binary(max_size=32)

CLIENT_HELLOS = st.builds(
    m.ClientHello,
    random=RANDOM,
    session_id=SESSION_ID,
    suites=SUITES,
    extensions=EXTENSIONS,
    compression=st.binary(min_size=1, max_size=4),
)
SERVER_HELLOS = st.builds(
    m.ServerHello,
    random=RANDOM,
    session_id=SESSION_ID,
    suite=st.integers(0, 0xFFFF),
    extensions=EXTENSIONS,
    compression=st.integers(0, 255),
)
ENTRIES = st.lists(st.builds(m.CertificateEntry, st.binary(min_size=1, max_size=50), EXTENSIONS), max_size=5)
CERTIFICATES = st.builds(m.Certificate, st.binary(max_size=8), ENTRIES.map(tuple))
REQUESTS = st.builds(m.CertificateRequest, st.binary(max_size=8), EXTENSIONS)
VERIFIES = st.builds(m.CertificateVerify, st.integers(0, 0xFFFF), st.binary(max_size=80))

PARSERS: dict[str, Callable[[bytes], Any]] = {
    "client_hello": m.parse_client_hello,
    "server_hello": m.parse_server_hello,
    "encrypted_extensions": m.parse_encrypted_extensions,
    "certificate_request": m.parse_certificate_request,
    "certificate": m.parse_certificate,
    "certificate_verify": m.parse_certificate_verify,
    "key_update": m.parse_key_update,
    "new_session_ticket": m.check_new_session_ticket,
    "key_share": ext.parse_share,
    "key_shares": ext.parse_shares,
    "protocols": ext.parse_protocols,
    "server_name": ext.check_server_name,
    "versions": ext.parse_offered_versions,
    "numbers": lambda body: ext.parse_numbers(body, "numbers"),
    "number": lambda body: ext.parse_number(body, "number"),
    "cookie": ext.parse_cookie,
}
OF_THE_PEER = (Alert.DECODE_ERROR, Alert.ILLEGAL_PARAMETER, Alert.PROTOCOL_VERSION, Alert.BAD_CERTIFICATE)


def parsed(parse: Callable[[bytes], Any], data: bytes) -> Any:
    """What was parsed, or the alert; any other exception fails the test."""
    try:
        return parse(data)
    except Abort as error:
        return OF_THE_PEER[OF_THE_PEER.index(error.alert)]


HELLO = m.ClientHello(random=bytes(32), session_id=b"", suites=(0x1301,), extensions={43: b"\2\3\4"})


@given(
    st.one_of(
        st.tuples(CLIENT_HELLOS, st.just("client_hello")),
        st.tuples(SERVER_HELLOS, st.just("server_hello")),
        st.tuples(CERTIFICATES, st.just("certificate")),
        st.tuples(REQUESTS, st.just("certificate_request")),
        st.tuples(VERIFIES, st.just("certificate_verify")),
    )
)
def test_what_is_encoded_is_parsed_to_the_same(case: tuple[Any, str]) -> None:
    sent, name = case
    raw = sent.encode()
    assert raw[0] == HandshakeType[name.upper()]
    assert int.from_bytes(raw[1:4]) == len(raw) - 4
    assert PARSERS[name](raw[4:]) == sent


@given(st.sampled_from(sorted(PARSERS)), st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_typed_error(name: str, data: bytes) -> None:
    parsed(PARSERS[name], data)


@given(CLIENT_HELLOS, st.data())
def test_a_hello_with_a_changed_byte_is_a_hello_or_a_typed_error(hello: m.ClientHello, data: st.DataObject) -> None:
    body = bytearray(hello.encode()[4:])
    body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
    again = parsed(m.parse_client_hello, bytes(body))
    assert isinstance(again, Alert) or again.encode()[4:] == bytes(body)


@pytest.mark.parametrize("name", ["client_hello", "server_hello", "certificate", "certificate_request"])
def test_a_message_that_is_cut_or_goes_on_is_a_decode_error(name: str) -> None:
    bodies: dict[str, Any] = {
        "client_hello": HELLO,
        "server_hello": m.ServerHello(random=bytes(32), session_id=b"", suite=0x1301, extensions={43: b"\3\4"}),
        "certificate": m.Certificate(b"", (m.CertificateEntry(b"der"),)),
        "certificate_request": m.CertificateRequest(b"", {13: b"\0\2\4\3"}),
    }
    body = bodies[name].encode()[4:]
    for size in range(len(body)):
        if name == "client_hello" and size == len(body) - len(m.encode_extensions(HELLO.extensions)):
            continue  # a whole hello of TLS 1.2
        if name == "server_hello" and size == 38:
            continue
        with pytest.raises(Abort) as caught:
            PARSERS[name](body[:size])
        assert caught.value.alert == Alert.DECODE_ERROR
    with pytest.raises(Abort) as caught:
        PARSERS[name](body + b"\0")
    assert caught.value.alert == Alert.DECODE_ERROR


def test_a_hello_without_extensions_is_of_an_old_version_and_not_malformed() -> None:
    body = HELLO.encode()[4:]
    with pytest.raises(Abort) as caught:
        m.parse_client_hello(body[: -len(m.encode_extensions(HELLO.extensions))])
    assert (caught.value.alert, caught.value.reason) == (Alert.PROTOCOL_VERSION, "protocol_version")


@pytest.mark.parametrize(
    ("parse", "body", "alert"),
    [
        (m.parse_encrypted_extensions, vector(2, bytes.fromhex("000a0000 000a0000")), Alert.ILLEGAL_PARAMETER),
        (m.parse_key_update, b"", Alert.DECODE_ERROR),
        (m.parse_key_update, b"\0\0", Alert.DECODE_ERROR),
        (m.parse_key_update, b"\2", Alert.ILLEGAL_PARAMETER),
        (ext.parse_shares, vector(2, ext.encode_share(29, b"a") * 2), Alert.ILLEGAL_PARAMETER),
        (ext.parse_shares, vector(2, ext.encode_share(29, b"")), Alert.ILLEGAL_PARAMETER),
        (ext.parse_protocols, vector(2, b"\0\1"), Alert.DECODE_ERROR),
        (ext.parse_protocols, vector(2, b""), Alert.DECODE_ERROR),
        (ext.parse_offered_versions, b"\3\3\4\3", Alert.DECODE_ERROR),
        (ext.parse_cookie, b"\0\0", Alert.DECODE_ERROR),
        (ext.check_server_name, vector(2, b"\0\0\1a" * 2), Alert.ILLEGAL_PARAMETER),
        (ext.check_server_name, b"\0\0", Alert.DECODE_ERROR),
        (m.parse_certificate, b"\0" + vector(3, vector(3, b"") + b"\0\0"), Alert.DECODE_ERROR),
        (m.parse_certificate, b"\0" + vector(3, (vector(3, b"d") + b"\0\0") * 17), Alert.BAD_CERTIFICATE),
        (m.check_new_session_ticket, bytes(8) + b"\0\0\0\0\0", Alert.DECODE_ERROR),
    ],
)
def test_each_malformed_structure_has_its_alert(parse: Callable[[bytes], object], body: bytes, alert: Alert) -> None:
    with pytest.raises(Abort) as caught:
        parse(body)
    assert caught.value.alert == alert


def test_an_empty_list_of_shares_asks_to_be_asked_again() -> None:
    assert ext.parse_shares(b"\0\0") == {}


def test_a_server_hello_with_the_random_of_the_rfc_is_a_retry() -> None:
    hello = m.ServerHello(random=RETRY_RANDOM, session_id=b"", suite=0x1301, extensions={})
    assert hello.retry
    assert not m.ServerHello(random=bytes(32), session_id=b"", suite=0x1301, extensions={}).retry


def test_alerts_are_named_as_openssl_names_them() -> None:
    assert alert_name(48) == "unknown ca"
    assert alert_name(222) == "number 222"


def test_a_reader_counts_to_the_end() -> None:
    reader = Reader(vector(1, b"ab") + vector(3, b"c") + u16s([1, 2]) + b"\0\0\0\7", "a thing")
    assert (reader.vector(1), reader.vector(3), reader.u16s(2), reader.u32()) == (b"ab", b"c", (1, 2), 7)
    assert not reader.more
    reader.end()
    with pytest.raises(Abort, match="a thing is truncated"):
        reader.u8()
    short = Reader(b"\1", "a thing")
    with pytest.raises(Abort, match="1 bytes too many"):
        short.end()
