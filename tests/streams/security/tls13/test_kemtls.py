"""Authentication by KEM: whole handshakes, what each side refuses, tampering, and alerts across changes of keys."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from streams.errors import HandshakeFailed
from streams.security.endpoint import Credentials
from streams.security.tls13 import extensions as ext
from streams.security.tls13 import messages as m
from streams.security.tls13.alerts import Abort, Alert
from streams.security.tls13.endpoint import Tls13Endpoint as Endpoint
from streams.security.tls13.kem import KEM_CODES, KemKey, encode_encapsulation, kem_of, parse_encapsulation
from streams.security.tls13.kemtls import KemCredential
from streams.security.tls13.names import Extension, HandshakeType
from streams.security.tls13.schemes import SCHEME_CODES
from tests.streams.security.tls13.support import (
    HOST,
    MAKE_KEY,
    Authority,
    client_of,
    connect,
    exchange,
    kem_credential,
    kem_settings,
    openssl_client,
    openssl_server,
    our_client,
    our_server,
    server_of,
)
from tests.streams.security.tls13.tampering import (
    KINDS,
    Change,
    all_unexpected_after,
    instead,
    outcome,
    places,
    replaced,
    spoil,
)

CLIENT = "spiffe://test/forwarder"
AUTHORITY = Authority("mldsa44")
CLIENTS, SERVERS = kem_credential(AUTHORITY, "mlkem768", CLIENT), kem_credential(AUTHORITY, "mlkem768", HOST)
Ends = Callable[..., tuple[Endpoint, Endpoint]]


def ends(
    client: KemCredential | None = CLIENTS,
    server: KemCredential = SERVERS,
    *,
    ask: bool = True,
    retry: bool = False,
    client_changes: dict[str, Any] | None = None,
    server_changes: dict[str, Any] | None = None,
) -> tuple[Endpoint, Endpoint]:
    """Both sides; classical groups, so that messages are short."""
    groups = ("X25519", "secp256r1") if retry else ("X25519",)
    one = kem_settings(AUTHORITY, client, groups, **(client_changes or {}))
    other = kem_settings(AUTHORITY, server, groups[-1:], ask_client=ask, **(server_changes or {}))
    return client_of(one), server_of(other)


def alert_of(error: HandshakeFailed) -> Alert:
    assert isinstance(error.__cause__, Abort)
    return error.__cause__.alert


# -- whole handshakes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", ["X25519MLKEM768", "SecP256r1MLKEM768", "X25519", "secp256r1"])
@pytest.mark.parametrize("suite", [0x1301, 0x1302, 0x1303])
@pytest.mark.parametrize("ask", [True, False])
def test_both_sides_authenticate_and_speak(group: str, suite: int, ask: bool) -> None:
    client = client_of(kem_settings(AUTHORITY, CLIENTS, (group,), suites=(suite,)))
    server = server_of(kem_settings(AUTHORITY, SERVERS, (group,), ask_client=ask))
    connect(client, server)
    exchange(client, server)
    assert client.facts().identities == (HOST,)
    assert server.facts().identities == ((CLIENT,) if ask else ())
    assert client.facts().group == group
    assert (client.facts().authentication, server.facts().authentication) == ("mldsa44", "mldsa44" if ask else "none")
    assert (client.bytes_in, client.bytes_out) == (server.bytes_out, server.bytes_in)


def test_after_a_retry_as_well() -> None:
    client, server = ends(retry=True)
    connect(client, server)
    exchange(client, server)
    assert server.facts().group == "secp256r1"


def test_each_kem_and_an_intermediate(tmp_path: Any) -> None:
    between = Authority("mldsa65", parent=AUTHORITY, name="between")
    for mine, theirs in (("mlkem768", "mlkem1024"), ("mlkem1024", "mlkem768"), ("mlkem1024", "mlkem1024")):
        client, server = ends(kem_credential(between, mine, CLIENT), kem_credential(between, theirs, HOST))
        connect(client, server)
        exchange(client, server)


def test_the_algorithm_that_is_named_is_the_weakest_of_key_and_chain() -> None:
    strong = Authority("mldsa65")
    client, server = kem_credential(strong, "mlkem768", CLIENT), kem_credential(strong, "mlkem768", HOST)
    one = client_of(kem_settings(strong, client))
    other = server_of(kem_settings(strong, server))
    connect(one, other)
    assert (one.facts().authentication, other.facts().authentication) == ("ML-KEM-768", "ML-KEM-768")


def test_the_client_finishes_first_and_is_complete_last() -> None:
    client, server = ends()
    for _ in range(2):
        client.handshake()
        server.feed(b"".join(client.take()))
        server.handshake()
        client.feed(b"".join(server.take()))
    client.handshake()
    server.feed(b"".join(client.take()))
    assert server.handshake()
    assert not client.complete
    client.feed(b"".join(server.take()))
    assert client.handshake()


# -- refusals ----------------------------------------------------------------------------------------------------


def of_another_key(credential: KemCredential) -> KemCredential:
    """The same certificate, and the key of another."""
    return KemCredential(credential.chain, KemKey(MAKE_KEY["mlkem768"]()))


def test_a_server_without_its_key_never_gets_past_the_clients_next_record() -> None:
    client, server = ends(server=of_another_key(SERVERS))
    first = outcome(client, server)[0]
    assert alert_of(first) == Alert.BAD_RECORD_MAC
    assert not client.complete
    assert not server.complete


def test_a_client_without_its_key_is_refused_at_its_finished() -> None:
    client, server = ends(of_another_key(CLIENTS))
    first, heard = outcome(client, server)
    assert alert_of(first) == Alert.DECRYPT_ERROR
    assert heard.alert == "decrypt error"


def test_a_client_without_a_certificate_is_refused_and_hears_why() -> None:
    first, heard = outcome(*ends(None))
    assert (first.reason, heard.alert) == ("no_client_certificate", "certificate required")


REFUSED_SERVERS: dict[str, tuple[KemCredential, Alert]] = {
    "of another name": (kem_credential(AUTHORITY, "mlkem768", "elsewhere"), Alert.BAD_CERTIFICATE),
    "of another CA": (kem_credential(Authority("mldsa44"), "mlkem768", HOST), Alert.UNKNOWN_CA),
    "for signatures too": (
        kem_credential(AUTHORITY, "mlkem768", HOST, key_usage="key_encipherment digital_signature"),
        Alert.BAD_CERTIFICATE,
    ),
    "for signatures alone": (
        kem_credential(AUTHORITY, "mlkem768", HOST, key_usage="digital_signature"),
        Alert.BAD_CERTIFICATE,
    ),
    "for both roles": (
        kem_credential(
            AUTHORITY,
            "mlkem768",
            HOST,
            purposes=[ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH],
        ),
        Alert.BAD_CERTIFICATE,
    ),
    "for no role": (kem_credential(AUTHORITY, "mlkem768", HOST, purposes=[]), Alert.BAD_CERTIFICATE),
    "for the other role": (
        kem_credential(AUTHORITY, "mlkem768", HOST, purposes=[ExtendedKeyUsageOID.CLIENT_AUTH]),
        Alert.BAD_CERTIFICATE,
    ),
}


@pytest.mark.parametrize("case", REFUSED_SERVERS)
def test_a_servers_certificate_is_refused_and_the_server_hears_why(case: str) -> None:
    credential, alert = REFUSED_SERVERS[case]
    first, heard = outcome(*ends(server=credential))
    assert (alert_of(first), heard.alert) == (alert, alert.name.lower().replace("_", " "))


def test_a_clients_certificate_is_refused_and_the_client_hears_why() -> None:
    first, heard = outcome(*ends(kem_credential(Authority("mldsa44"), "mlkem768", CLIENT)))
    assert (first.reason, heard.alert) == ("unknown_ca", "unknown ca")


def test_a_classical_chain_is_refused_unless_it_was_offered() -> None:
    classical = Authority("p256")
    client, server = kem_credential(classical, "mlkem768", CLIENT), kem_credential(classical, "mlkem768", HOST)
    one, other = kem_settings(classical, client), kem_settings(classical, server)
    first, _ = outcome(client_of(one), server_of(other))
    assert (alert_of(first), first.reason) == (Alert.BAD_CERTIFICATE, "certificate_invalid")
    schemes = (SCHEME_CODES["ecdsa_secp256r1_sha256"],)
    allowed = [kem_settings(classical, each, chain_schemes=schemes) for each in (client, server)]
    endpoints = client_of(allowed[0]), server_of(allowed[1])
    connect(*endpoints)
    assert [each.facts().authentication for each in endpoints] == ["ecdsa_secp256r1_sha256"] * 2


def test_a_kem_that_was_not_offered_is_refused_by_the_side_that_has_it() -> None:
    only_large = {"kems": (KEM_CODES["ML-KEM-1024"],)}
    first, heard = outcome(*ends(client_changes=only_large))
    assert (first.reason, heard.alert) == ("no_shared_signature_algorithm", "handshake failure")
    first, heard = outcome(*ends(server_changes=only_large))
    assert (first.reason, heard.alert) == ("no_shared_signature_algorithm", "handshake failure")


def test_a_leaf_that_no_kem_fits_is_an_unsupported_certificate() -> None:
    leaf = AUTHORITY.leaf(MAKE_KEY["p256"]().public_key(), [HOST])
    credential = KemCredential((der_of(leaf),), SERVERS.key)
    first, heard = outcome(*ends(server=credential))
    assert (alert_of(first), heard.alert) == (Alert.UNSUPPORTED_CERTIFICATE, "unsupported certificate")


def der_of(certificate: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    encoded: bytes = certificate.public_bytes(Encoding.DER)
    return encoded


@pytest.fixture(scope="module")
def signing(tmp_path_factory: pytest.TempPathFactory) -> tuple[Credentials, Credentials]:
    directory = tmp_path_factory.mktemp("pki")
    return AUTHORITY.issue(directory / "a", "mldsa44", [CLIENT]), AUTHORITY.issue(directory / "b", "mldsa44")


def test_there_is_no_way_to_signatures(signing: tuple[Credentials, Credentials]) -> None:
    client, server = ends()
    for one, other in (
        (client, our_server(signing[1])),
        (our_client(signing[0], groups=("X25519",)), server),
        (ends()[0], openssl_server(signing[1], "X25519")),
        (openssl_client(signing[0], "X25519"), ends()[1]),
    ):
        failures = outcome(one, other)  # type: ignore[arg-type]
        assert failures
        assert not one.complete
        assert not other.complete


@pytest.mark.parametrize(
    ("side", "number", "message", "alert"),
    [
        ("client", 1, encode_encapsulation(bytes(1087)), Alert.ILLEGAL_PARAMETER),
        ("client", 1, encode_encapsulation(bytes(1089)), Alert.ILLEGAL_PARAMETER),
        ("client", 1, encode_encapsulation(b""), Alert.ILLEGAL_PARAMETER),
        ("client", 1, b"\x1e\0\x04\x44\x01x\x04\x40" + bytes(1088), Alert.ILLEGAL_PARAMETER),
        ("client", 1, b"\x1e\0\x04\x44\x00\x04\x40" + bytes(1089), Alert.DECODE_ERROR),
        ("client", 1, b"\x1e\0\x08\x01", Alert.DECODE_ERROR),
        ("client", 1, encode_encapsulation(bytes(1088)), Alert.BAD_RECORD_MAC),
        ("client", 2, m.Certificate(b"x", ()).encode(), Alert.ILLEGAL_PARAMETER),
        ("server", 2, m.CertificateRequest(b"", {13: b"\0\2\xfe\2"}).encode(), Alert.MISSING_EXTENSION),
        ("server", 2, m.CertificateRequest(b"", {50: b"\0\2\x09\4"}).encode(), Alert.MISSING_EXTENSION),
        (
            "server",
            2,
            m.CertificateRequest(b"", {13: b"\0\2\xfe\2", 50: b"\0\4\x09\4\xfe\2"}).encode(),
            Alert.ILLEGAL_PARAMETER,
        ),
        ("server", 3, m.Certificate(b"", ()).encode(), Alert.DECODE_ERROR),
        ("server", 4, encode_encapsulation(bytes(1087)), Alert.ILLEGAL_PARAMETER),
        ("server", 5, b"\x14\0\0\x1f" + bytes(31), Alert.DECODE_ERROR),
        ("server", 5, b"\x14\0\0\x20" + bytes(32), Alert.DECRYPT_ERROR),
        ("client", 3, b"\x14\0\0\x20" + bytes(32), Alert.DECRYPT_ERROR),
    ],
)
def test_a_message_is_refused_and_the_alert_arrives(side: str, number: int, message: bytes, alert: Alert) -> None:
    """Also where the two sides stand on different keys: an alert is tried with the key before."""
    client, server = ends()
    spoil({"client": client, "server": server}[side], replaced(number, lambda _: [message]))
    failures = outcome(client, server)
    assert alert_of(failures[0]) == alert
    if (side, number) != ("client", 3) and alert != Alert.BAD_RECORD_MAC:
        assert failures[1].alert == alert.name.lower().replace("_", " ")


def test_a_kem_among_the_schemes_for_certificates_is_illegal() -> None:
    schemes = (SCHEME_CODES["mldsa44"], KEM_CODES["ML-KEM-768"])
    client, server = ends(client_changes={"chain_schemes": schemes})
    first = outcome(client, server)[0]
    assert alert_of(first) == Alert.ILLEGAL_PARAMETER


# -- tampering ---------------------------------------------------------------------------------------------------


def messages_of(ask: bool) -> dict[str, list[bytes]]:
    client, server = ends(ask=ask)
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


FLOWS = {
    (True, "client"): [1, 30, 11, 20],
    (True, "server"): [2, 8, 13, 11, 30, 20],
    (False, "client"): [1, 30, 20],
    (False, "server"): [2, 8, 11, 20],
}


def flipped(at: int, message: bytes) -> list[bytes]:
    return [message[:at] + bytes((message[at] ^ (1 << at % 8),)) + message[at + 1 :]]


@pytest.mark.parametrize(("ask", "side"), FLOWS)
def test_no_handshake_survives_a_change_of_a_byte(ask: bool, side: str) -> None:
    for number, honest in enumerate(messages_of(ask)[side]):
        for at in places(honest, 120):
            client, server = ends(ask=ask)
            spoil({"client": client, "server": server}[side], replaced(number, partial(flipped, at)))
            outcome(client, server)
            assert not (client.complete and server.complete), f"byte {at} of {side}'s message {number}"


@pytest.mark.parametrize(("ask", "side"), FLOWS)
def test_each_message_out_of_place_is_unexpected(ask: bool, side: str) -> None:
    also = {HandshakeType.CERTIFICATE_REQUEST: 11}
    if not ask:
        also[HandshakeType.CERTIFICATE] = 13
    honest = messages_of(ask)[side]
    assert [message[0] for message in honest] == FLOWS[ask, side]
    for number, message in enumerate(honest):
        expected = HandshakeType(message[0])
        for kind in KINDS:
            if kind in (expected, also.get(expected)):
                continue
            client, server = ends(ask=ask)
            change = partial(instead, [bytes((kind, 0, 0, 0))])
            spoil({"client": client, "server": server}[side], replaced(number, change))
            assert alert_of(outcome(client, server)[0]) == Alert.UNEXPECTED_MESSAGE, f"{kind} for {expected.name}"


@pytest.mark.parametrize(("ask", "side"), FLOWS)
def test_no_handshake_survives_a_message_left_out_repeated_or_followed(ask: bool, side: str) -> None:
    changes: list[Callable[[bytes], list[bytes]]] = [
        lambda _: [],
        lambda message: [message, message],
        lambda message: [message + b"\0"],
        lambda message: [message, b"\x18\0\0\1\0"],
    ]
    for number in range(len(FLOWS[ask, side])):
        for change in changes:
            client, server = ends(ask=ask)
            spoil({"client": client, "server": server}[side], replaced(number, change))
            outcome(client, server)
            assert not (client.complete and server.complete)


@pytest.mark.parametrize(("side", "expected"), [("client", 1), ("server", 2)])
def test_after_a_retry_each_message_but_the_next_hello_is_unexpected(side: str, expected: int) -> None:
    for kind in set(KINDS) - {expected}:
        client, server = ends(retry=True)
        intruder = partial(instead, [bytes((kind, 0, 0, 0))])
        spoil({"client": client, "server": server}[side], replaced(1, intruder))
        assert alert_of(outcome(client, server)[0]) == Alert.UNEXPECTED_MESSAGE


@pytest.mark.parametrize("ask", [True, False])
def test_after_completion_each_message_but_key_update_is_unexpected(ask: bool) -> None:
    """Tickets too: this mode has none."""

    def connected() -> tuple[Endpoint, Endpoint]:
        client, server = ends(ask=ask)
        connect(client, server)
        return client, server

    all_unexpected_after(connected)


# -- parts -------------------------------------------------------------------------------------------------------


def test_the_message_has_the_layout_of_the_profile() -> None:
    assert encode_encapsulation(bytes(1088)) == b"\x1e\0\x04\x43\x00\x04\x40" + bytes(1088)
    assert parse_encapsulation(b"\0\0\3abc") == b"abc"


def test_a_key_of_another_kind_is_not_a_kem() -> None:
    assert kem_of(MAKE_KEY["p256"]().public_key()) is None
    with pytest.raises(ValueError, match="not a KEM's key"):
        KemKey(MAKE_KEY["p256"]())


def test_the_hello_says_kems_and_schemes_of_chains_apart() -> None:
    client, _ = ends()
    client.handshake()
    record = b"".join(client.take())
    offered = m.parse_client_hello(record[9:]).extensions
    kems = ext.parse_numbers(offered[Extension.SIGNATURE_ALGORITHMS], "")
    assert kems == tuple(KEM_CODES.values())
    assert not set(kems) & set(ext.parse_numbers(offered[Extension.SIGNATURE_ALGORITHMS_CERT], ""))
