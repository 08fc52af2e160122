"""What a client makes of a server's answers: each refusal by its alert."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from streams.errors import HandshakeFailed
from streams.security.endpoint import Credentials
from streams.security.tls13 import extensions as ext
from streams.security.tls13 import messages as m
from streams.security.tls13.alerts import Abort, Alert
from streams.security.tls13.endpoint import Tls13Endpoint as Endpoint
from streams.security.tls13.groups import GROUP_CODES, GROUPS
from streams.security.tls13.names import RETRY_RANDOM, TLS13, Extension
from streams.security.tls13.schemes import SCHEME_CODES
from tests.streams.security.tls13.support import ALPN, Authority, our_client, our_server
from tests.streams.security.tls13.tampering import outcome, replaced, spoil

X25519, P256, HYBRID = (GROUP_CODES[name] for name in ("X25519", "secp256r1", "X25519MLKEM768"))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Credentials, Credentials]:
    directory, authority = tmp_path_factory.mktemp("pki"), Authority()
    return authority.issue(directory / "client", names=["spiffe://test/a"]), authority.issue(directory / "server")


def asked(both: tuple[Credentials, Credentials]) -> tuple[Endpoint, m.ClientHello]:
    """A client that has sent its hello, with a share for X25519 of X25519 and P-256."""
    client = our_client(both[0], groups=("X25519", "secp256r1"), suites=(0x1301, 0x1302))
    client.handshake()
    return client, sent_hello(client)


def sent_hello(client: Endpoint) -> m.ClientHello:
    record = b"".join(client.take()).removeprefix(b"\x14\3\3\0\1\1")
    return m.parse_client_hello(record[9 : 5 + int.from_bytes(record[3:5])])


def answer(offer: m.ClientHello, changes: dict[int, bytes | None] | None = None, **fields: Any) -> bytes:
    """A ServerHello that is right unless changed."""
    extensions: dict[int, bytes] = {
        Extension.SUPPORTED_VERSIONS: TLS13.to_bytes(2),
        Extension.KEY_SHARE: ext.encode_share(X25519, GROUPS[X25519].generate().share),
    }
    for kind, body in (changes or {}).items():
        extensions.pop(kind, None)
        if body is not None:
            extensions[kind] = body
    whole = m.ServerHello(random=bytes(32), session_id=offer.session_id, suite=0x1301, extensions=extensions)
    return msgspec.structs.replace(whole, **fields).encode()


def retry(offer: m.ClientHello, changes: dict[int, bytes | None] | None = None, **fields: Any) -> bytes:
    """A HelloRetryRequest for P-256 that is right unless changed."""
    share: dict[int, bytes | None] = {Extension.KEY_SHARE: P256.to_bytes(2)}
    return answer(offer, share | (changes or {}), random=RETRY_RANDOM, **fields)


def fed(client: Endpoint, message: bytes) -> None:
    client.feed(b"\x16\3\3" + len(message).to_bytes(2) + message)
    client.handshake()


def alert_for(client: Endpoint, message: bytes) -> Alert:
    with pytest.raises(HandshakeFailed) as caught:
        fed(client, message)
    assert isinstance(caught.value.__cause__, Abort)
    assert client.take()
    return caught.value.__cause__.alert


def test_the_hello_offers_what_it_should_and_nothing_that_resumes(both: tuple[Credentials, Credentials]) -> None:
    client = our_client(both[0], groups=("X25519MLKEM768",))
    client.handshake()
    hello = sent_hello(client)
    assert list(hello.extensions) == [
        Extension.SERVER_NAME,
        Extension.SUPPORTED_GROUPS,
        Extension.SIGNATURE_ALGORITHMS,
        Extension.ALPN,
        Extension.SUPPORTED_VERSIONS,
        Extension.KEY_SHARE,
    ]
    assert len(hello.session_id) == 32
    assert client.bytes_out < 1440, "one segment"
    assert list(ext.parse_shares(hello.extensions[Extension.KEY_SHARE])) == [HYBRID]


def test_an_address_is_not_sent_as_a_name(both: tuple[Credentials, Credentials]) -> None:
    client = our_client(both[0], host="127.0.0.1")
    client.handshake()
    assert Extension.SERVER_NAME not in sent_hello(client).extensions


@pytest.mark.parametrize(
    ("changes", "fields", "alert"),
    [
        ({Extension.SUPPORTED_VERSIONS: None}, {}, Alert.PROTOCOL_VERSION),
        (
            {Extension.SUPPORTED_VERSIONS: None},
            {"random": bytes(24) + b"DOWNGRD\1"},
            Alert.ILLEGAL_PARAMETER,
        ),
        ({Extension.SUPPORTED_VERSIONS: b"\3\3"}, {}, Alert.ILLEGAL_PARAMETER),
        ({}, {"version": 0x0304}, Alert.ILLEGAL_PARAMETER),
        ({}, {"version": 0x0300}, Alert.PROTOCOL_VERSION),
        ({Extension.KEY_SHARE: ext.encode_share(X25519, b"")}, {}, Alert.ILLEGAL_PARAMETER),
        ({}, {"session_id": b""}, Alert.ILLEGAL_PARAMETER),
        ({}, {"suite": 0x1303}, Alert.ILLEGAL_PARAMETER),
        ({}, {"suite": 0xC02B}, Alert.ILLEGAL_PARAMETER),
        ({}, {"compression": 1}, Alert.ILLEGAL_PARAMETER),
        ({Extension.KEY_SHARE: None}, {}, Alert.MISSING_EXTENSION),
        ({Extension.KEY_SHARE: ext.encode_share(X25519, bytes(32))}, {}, Alert.ILLEGAL_PARAMETER),
        ({Extension.KEY_SHARE: ext.encode_share(X25519, bytes(31))}, {}, Alert.ILLEGAL_PARAMETER),
        ({Extension.KEY_SHARE: ext.encode_share(P256, b"\4" + bytes(64))}, {}, Alert.ILLEGAL_PARAMETER),
        ({Extension.KEY_SHARE: b"\0\x1d"}, {}, Alert.DECODE_ERROR),
        ({Extension.ALPN: ext.encode_protocols([ALPN])}, {}, Alert.ILLEGAL_PARAMETER),
        ({Extension.COOKIE: b"\0\1c"}, {}, Alert.UNSUPPORTED_EXTENSION),
        ({Extension.PRE_SHARED_KEY: b"\0\0"}, {}, Alert.UNSUPPORTED_EXTENSION),
        ({0x5555: b""}, {}, Alert.UNSUPPORTED_EXTENSION),
    ],
)
def test_a_server_hello_is_refused(
    changes: dict[int, bytes | None],
    fields: dict[str, Any],
    alert: Alert,
    both: tuple[Credentials, Credentials],
) -> None:
    client, offer = asked(both)
    assert alert_for(client, answer(offer, changes, **fields)) == alert


@pytest.mark.parametrize(
    ("changes", "fields", "alert"),
    [
        ({Extension.KEY_SHARE: X25519.to_bytes(2)}, {}, Alert.ILLEGAL_PARAMETER),
        ({Extension.KEY_SHARE: HYBRID.to_bytes(2)}, {}, Alert.ILLEGAL_PARAMETER),
        ({Extension.KEY_SHARE: None}, {}, Alert.ILLEGAL_PARAMETER),
        ({Extension.KEY_SHARE: ext.encode_share(P256, b"x")}, {}, Alert.DECODE_ERROR),
        ({Extension.COOKIE: b"\0\0"}, {}, Alert.DECODE_ERROR),
        ({Extension.SUPPORTED_GROUPS: b"\0\2\0\x17"}, {}, Alert.ILLEGAL_PARAMETER),
        ({0x5555: b""}, {}, Alert.UNSUPPORTED_EXTENSION),
        ({Extension.SUPPORTED_VERSIONS: None}, {}, Alert.PROTOCOL_VERSION),
        ({}, {"suite": 0x1303}, Alert.ILLEGAL_PARAMETER),
        ({}, {"session_id": b""}, Alert.ILLEGAL_PARAMETER),
    ],
)
def test_a_retry_is_refused(
    changes: dict[int, bytes | None],
    fields: dict[str, Any],
    alert: Alert,
    both: tuple[Credentials, Credentials],
) -> None:
    client, offer = asked(both)
    assert alert_for(client, retry(offer, changes, **fields)) == alert


def test_a_retry_with_a_cookie_gets_it_back(both: tuple[Credentials, Credentials]) -> None:
    client, offer = asked(both)
    fed(client, retry(offer, {Extension.COOKIE: b"\0\3abc"}))
    again = sent_hello(client)
    assert again.extensions[Extension.COOKIE] == b"\0\3abc"
    assert list(ext.parse_shares(again.extensions[Extension.KEY_SHARE])) == [P256]
    assert (again.random, again.session_id, again.suites) == (offer.random, offer.session_id, offer.suites)


def test_a_retry_for_a_cookie_alone_keeps_the_share(both: tuple[Credentials, Credentials]) -> None:
    client, offer = asked(both)
    fed(client, retry(offer, {Extension.KEY_SHARE: None, Extension.COOKIE: b"\0\3abc"}))
    again = sent_hello(client)
    assert again.extensions[Extension.KEY_SHARE] == offer.extensions[Extension.KEY_SHARE]


def test_a_second_retry_is_unexpected(both: tuple[Credentials, Credentials]) -> None:
    client, offer = asked(both)
    fed(client, retry(offer))
    client.take()
    assert alert_for(client, retry(offer)) == Alert.UNEXPECTED_MESSAGE


def test_after_a_retry_suite_and_group_are_those_of_the_retry(both: tuple[Credentials, Credentials]) -> None:
    right: dict[int, bytes | None] = {Extension.KEY_SHARE: ext.encode_share(P256, GROUPS[P256].generate().share)}
    for changes, suite in ((right, 0x1302), ({}, 0x1301)):
        client, offer = asked(both)
        fed(client, retry(offer))
        client.take()
        assert alert_for(client, answer(offer, changes, suite=suite)) == Alert.ILLEGAL_PARAMETER


# -- the protected flight: a server of ours whose messages are replaced ------------------------------------------------

CERTIFICATE = m.Certificate(b"", (m.CertificateEntry(b"\x30\0"),))


@pytest.mark.parametrize(
    ("number", "message", "alert"),
    [
        (1, m.encode_encrypted_extensions({}), Alert.NO_APPLICATION_PROTOCOL),
        (1, m.encode_encrypted_extensions({16: ext.encode_protocols([b"h2"])}), Alert.ILLEGAL_PARAMETER),
        (1, m.encode_encrypted_extensions({16: ext.encode_protocols([ALPN, b"h2"])}), Alert.ILLEGAL_PARAMETER),
        (1, m.encode_encrypted_extensions({16: b"\0"}), Alert.DECODE_ERROR),
        (1, m.encode_encrypted_extensions({0: b"x"}), Alert.DECODE_ERROR),
        (1, m.encode_encrypted_extensions({10: b"\0"}), Alert.DECODE_ERROR),
        (1, m.encode_encrypted_extensions({43: TLS13.to_bytes(2)}), Alert.ILLEGAL_PARAMETER),
        (1, m.encode_encrypted_extensions({51: b""}), Alert.ILLEGAL_PARAMETER),
        (1, m.encode_encrypted_extensions({42: b""}), Alert.UNSUPPORTED_EXTENSION),
        (1, m.encode_encrypted_extensions({0x5555: b""}), Alert.UNSUPPORTED_EXTENSION),
        (2, m.CertificateRequest(b"x", {13: b"\0\2\4\3"}).encode(), Alert.ILLEGAL_PARAMETER),
        (2, m.CertificateRequest(b"", {}).encode(), Alert.MISSING_EXTENSION),
        (2, m.CertificateRequest(b"", {13: b"\0\0"}).encode(), Alert.DECODE_ERROR),
        (3, m.Certificate(b"", ()).encode(), Alert.DECODE_ERROR),
        (3, m.Certificate(b"x", CERTIFICATE.entries).encode(), Alert.ILLEGAL_PARAMETER),
        (3, CERTIFICATE.encode(), Alert.BAD_CERTIFICATE),
        (3, m.Certificate(b"", (m.CertificateEntry(b"x", {5: b""}),)).encode(), Alert.UNSUPPORTED_EXTENSION),
        (3, b"\x0b\2\0\1", Alert.DECODE_ERROR),
        (4, m.CertificateVerify(0x0403, b"x" * 70).encode(), Alert.DECRYPT_ERROR),
        (4, m.CertificateVerify(0x0403, b"").encode(), Alert.DECRYPT_ERROR),
        (4, m.CertificateVerify(0x0804, b"x" * 70).encode(), Alert.ILLEGAL_PARAMETER),
        (4, m.CertificateVerify(0x0401, b"x" * 70).encode(), Alert.ILLEGAL_PARAMETER),
    ],
)
def test_a_message_of_the_server_is_refused(
    number: int, message: bytes, alert: Alert, both: tuple[Credentials, Credentials]
) -> None:
    client, server = our_client(both[0], groups=("X25519",)), our_server(both[1])
    spoil(server, replaced(number, lambda _: [message]))
    first = outcome(client, server)[0]
    assert isinstance(first.__cause__, Abort)
    assert first.__cause__.alert == alert


def test_a_signature_of_a_scheme_that_was_not_offered_is_illegal_even_if_it_is_right(
    both: tuple[Credentials, Credentials], tmp_path: Path
) -> None:
    offered, other = SCHEME_CODES["rsa_pss_rsae_sha256"], SCHEME_CODES["rsa_pss_rsae_sha384"]
    authority = Authority()
    client = our_client(authority.issue(tmp_path / "a", names=["spiffe://test/a"]), schemes=(offered,))
    server = our_server(authority.issue(tmp_path / "b", "rsa"))
    signer: Any = server._side._settings.authentication.credential.signer  # type: ignore[attr-defined]
    sign = signer.sign
    signer.sign = lambda _, content: sign(other, content)
    spoil(server, replaced(4, lambda message: [message[:4] + other.to_bytes(2) + message[6:]]))
    first = outcome(client, server)[0]
    assert isinstance(first.__cause__, Abort)
    assert first.__cause__.alert == Alert.ILLEGAL_PARAMETER


def test_a_request_with_extensions_of_other_stacks_is_answered(both: tuple[Credentials, Credentials]) -> None:
    """What Go and Node send along: 5, 18, 47, 50 are none of ours, and none of them matters."""
    wanted = ext.encode_numbers([SCHEME_CODES["ecdsa_secp256r1_sha256"]])
    request = m.CertificateRequest(b"", {5: b"", 13: wanted, 18: b"", 47: b"\0\0", 50: wanted, 0x5555: b"x"})
    client, server = our_client(both[0], groups=("X25519",)), our_server(both[1])
    spoil(server, replaced(2, lambda _: [request.encode()]))
    first = outcome(client, server)[0]
    assert isinstance(first.__cause__, Abort)
    assert first.__cause__.alert == Alert.DECRYPT_ERROR, "only the signature over another transcript is wrong"


def test_a_client_whose_key_no_scheme_fits_says_so_itself(both: tuple[Credentials, Credentials]) -> None:
    client = our_client(both[0], groups=("X25519",))
    server = our_server(both[1], schemes=(SCHEME_CODES["mldsa65"],))
    mine, heard = outcome(client, server)
    assert mine.reason == "no_shared_signature_algorithm"
    assert heard.alert == "handshake failure"
