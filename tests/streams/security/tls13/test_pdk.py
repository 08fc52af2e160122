"""KEMTLS with a stored key of the server: whole handshakes, refusals on both sides, tampering."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization

from streams.errors import HandshakeFailed
from streams.security.tls13 import extensions as ext
from streams.security.tls13 import messages as m
from streams.security.tls13.alerts import Abort, Alert
from streams.security.tls13.codec import vector
from streams.security.tls13.endpoint import Tls13Endpoint as Endpoint
from streams.security.tls13.kem import KemKey, encode_encapsulation
from streams.security.tls13.kemtls import KemAuthentication, KemCredential
from streams.security.tls13.names import RETRY_RANDOM, Extension
from streams.security.tls13.pdk import PdkAuthentication, ServerKey, StoredKey, fingerprint
from streams.security.tls13.settings import Settings
from tests.streams.security.tls13.support import (
    DAY,
    HOST,
    MAKE_KEY,
    NOW,
    Authority,
    client_of,
    connect,
    exchange,
    kem_credential,
    kem_settings,
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
CLIENTS = kem_credential(AUTHORITY, "mlkem768", CLIENT)
PRIVATE = MAKE_KEY["mlkem768"]()
SPKI: bytes = PRIVATE.public_key().public_bytes(
    serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
)
STORED = StoredKey(SPKI, (HOST,), NOW + DAY)
KEYS = {fingerprint(SPKI): ServerKey(KemKey(PRIVATE), NOW + DAY)}


def side(credential: KemCredential | None, groups: tuple[str, ...], **changes: Any) -> Settings:
    stored, keys = changes.pop("stored", None), changes.pop("keys", {})
    made = kem_settings(AUTHORITY, credential, groups, suites=(0x1301,), **changes)
    assert isinstance(made.authentication, KemAuthentication)
    return msgspec.structs.replace(made, authentication=PdkAuthentication(made.authentication, stored, keys))


def ends(
    client: KemCredential | None = CLIENTS,
    *,
    stored: StoredKey = STORED,
    keys: dict[bytes, ServerKey] | None = None,
    ask: bool = True,
    groups: tuple[str, ...] = ("X25519",),
    server_groups: tuple[str, ...] = ("X25519",),
) -> tuple[Endpoint, Endpoint]:
    one = side(client, groups, stored=stored)
    other = side(None, server_groups, keys=KEYS if keys is None else keys, ask_client=ask)
    return client_of(one), server_of(other)


def alert_of(error: HandshakeFailed) -> Alert:
    assert isinstance(error.__cause__, Abort)
    return error.__cause__.alert


@pytest.mark.parametrize("group", ["X25519MLKEM768", "SecP256r1MLKEM768", "X25519", "secp256r1"])
@pytest.mark.parametrize("ask", [True, False])
def test_both_sides_authenticate_in_one_round_trip(group: str, ask: bool) -> None:
    client, server = ends(CLIENTS if ask else None, ask=ask, groups=(group,), server_groups=(group,))
    client.handshake()
    server.feed(b"".join(client.take()))
    server.handshake()
    client.feed(b"".join(server.take()))
    assert client.handshake()
    server.feed(b"".join(client.take()))
    assert server.handshake()
    exchange(client, server)
    assert (client.facts().identities, client.facts().authentication) == ((HOST,), "ML-KEM-768")
    assert server.facts().identities == ((CLIENT,) if ask else ())
    assert server.facts().authentication == ("mldsa44" if ask else "none")


def test_a_client_may_show_itself_to_a_server_that_does_not_ask() -> None:
    client, server = ends(ask=False)
    connect(client, server)
    assert server.facts().identities == (CLIENT,)


def test_keys_before_the_last_rotation_are_taken_until_their_end() -> None:
    new = MAKE_KEY["mlkem768"]()
    keys = {b"x" * 32: ServerKey(KemKey(new), NOW + 9 * DAY)} | KEYS
    connect(*ends(keys=keys))
    keys[fingerprint(SPKI)] = ServerKey(KemKey(PRIVATE), NOW - DAY)
    first, heard = outcome(*ends(keys=keys))
    assert (alert_of(first), first.reason) == (Alert.UNKNOWN_PSK_IDENTITY, "unknown_stored_key")
    assert heard.alert == "unknown psk identity"


def test_an_unknown_key_is_refused() -> None:
    first, _ = outcome(*ends(keys={}))
    assert alert_of(first) == Alert.UNKNOWN_PSK_IDENTITY


def test_a_server_without_the_key_gets_nowhere() -> None:
    keys = {fingerprint(SPKI): ServerKey(KemKey(MAKE_KEY["mlkem768"]()), NOW + DAY)}
    client, server = ends(keys=keys)
    assert alert_of(outcome(client, server)[0]) == Alert.BAD_RECORD_MAC
    client, server = ends(None, keys=keys, ask=False)
    first = outcome(client, server)[0]
    assert alert_of(first) == Alert.BAD_RECORD_MAC
    assert not client.complete


def test_a_client_without_its_key_never_finishes() -> None:
    client, server = ends(KemCredential(CLIENTS.chain, KemKey(MAKE_KEY["mlkem768"]())))
    first = outcome(client, server)[0]
    assert alert_of(first) == Alert.DECRYPT_ERROR
    assert not server.complete


def test_a_client_that_shows_nothing_to_a_server_that_asks_is_refused() -> None:
    first, heard = outcome(*ends(None))
    assert (first.reason, heard.alert) == ("no_client_certificate", "certificate required")


def test_a_clients_chain_is_refused_and_the_client_hears_why() -> None:
    first, heard = outcome(*ends(kem_credential(Authority("mldsa44"), "mlkem768", CLIENT)))
    assert (first.reason, heard.alert) == ("unknown_ca", "unknown ca")


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        (StoredKey(SPKI, (HOST,), NOW - DAY), "certificate_expired"),
        (StoredKey(SPKI, ("elsewhere",), NOW + DAY), "host_mismatch"),
    ],
)
def test_a_client_does_not_begin_with_a_stored_key_that_does_not_fit(stored: StoredKey, reason: str) -> None:
    client, _ = ends(stored=stored)
    for _ in range(2):
        with pytest.raises(HandshakeFailed) as caught:
            client.handshake()
        assert caught.value.reason == reason
    assert client.take() == []


def test_there_is_no_retry() -> None:
    client, server = ends(groups=("X25519", "secp256r1"), server_groups=("secp256r1",))
    first, heard = outcome(client, server)
    assert (first.reason, heard.alert) == ("no_shared_group", "handshake failure")
    client, _ = ends(groups=("X25519", "secp256r1"))
    client.handshake()
    record = b"".join(client.take())
    offer = m.parse_client_hello(record[9 : 5 + int.from_bytes(record[3:5])])
    retry = m.ServerHello(
        random=RETRY_RANDOM,
        session_id=offer.session_id,
        suite=0x1301,
        extensions={43: b"\3\4", 51: b"\0\x17"},
    ).encode()
    client.feed(b"\x16\3\3" + len(retry).to_bytes(2) + retry)
    with pytest.raises(HandshakeFailed) as caught:
        client.handshake()
    assert alert_of(caught.value) == Alert.UNEXPECTED_MESSAGE


def changed_hello(change: Callable[[dict[int, bytes]], object], **fields: Any) -> Callable[[bytes], list[bytes]]:
    def changed(message: bytes) -> list[bytes]:
        hello = m.parse_client_hello(message[4:])
        change(hello.extensions)
        return [msgspec.structs.replace(hello, **fields).encode()]

    return changed


STORED_EXTENSION, EARLY = Extension.STORED_AUTH_KEY, Extension.EARLY_AUTH


@pytest.mark.parametrize(
    ("change", "alert"),
    [
        (changed_hello(lambda offered: offered.pop(STORED_EXTENSION)), Alert.MISSING_EXTENSION),
        (changed_hello(lambda offered: offered.update({STORED_EXTENSION: b""})), Alert.DECODE_ERROR),
        (
            changed_hello(
                lambda offered: offered.update({STORED_EXTENSION: fingerprint(SPKI) + vector(2, bytes(1087))})
            ),
            Alert.ILLEGAL_PARAMETER,
        ),
        (changed_hello(lambda offered: offered.pop(EARLY)), Alert.CERTIFICATE_REQUIRED),
        (changed_hello(lambda offered: offered.update({EARLY: b"x"})), Alert.DECODE_ERROR),
        (changed_hello(lambda _: None, suites=(0x1301, 0x1302)), Alert.ILLEGAL_PARAMETER),
        (
            changed_hello(lambda offered: offered.update({50: ext.encode_numbers([0xFE02])})),
            Alert.ILLEGAL_PARAMETER,
        ),
    ],
)
def test_a_hello_is_refused(change: Callable[[bytes], list[bytes]], alert: Alert) -> None:
    client, server = ends()
    spoil(client, replaced(0, change))
    first = outcome(client, server)[0]
    if alert == Alert.CERTIFICATE_REQUIRED:
        assert first.reason == "no_client_certificate"
    assert alert_of(first) == alert


@pytest.mark.parametrize("missing", [STORED_EXTENSION, EARLY])
def test_a_server_that_does_not_confirm_both_extensions_is_refused(missing: Extension) -> None:
    def without(message: bytes) -> list[bytes]:
        hello = m.parse_server_hello(message[4:])
        del hello.extensions[missing]
        return [hello.encode()]

    client, server = ends()
    spoil(server, replaced(0, without))
    first, heard = outcome(client, server)
    assert alert_of(first) == Alert.MISSING_EXTENSION
    assert heard.alert == "missing extension", "spoken under the early key, which the server still tries"


def test_a_server_of_the_full_flow_or_of_signatures_is_refused() -> None:
    full = kem_settings(AUTHORITY, kem_credential(AUTHORITY, "mlkem768", HOST), ("X25519",))
    client, _ = ends()
    failures = outcome(client, server_of(full))
    assert failures
    assert not client.complete


FLOWS = {
    (True, "client"): [1, 11, 20],
    (True, "server"): [2, 8, 30, 20],
    (False, "client"): [1, 20],
    (False, "server"): [2, 8, 20],
}


def fresh(ask: bool) -> tuple[Endpoint, Endpoint]:
    return ends(CLIENTS if ask else None, ask=ask)


def messages_of(ask: bool) -> dict[str, list[bytes]]:
    client, server = fresh(ask)
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


def flipped(at: int, message: bytes) -> list[bytes]:
    return [message[:at] + bytes((message[at] ^ (1 << at % 8),)) + message[at + 1 :]]


@pytest.mark.parametrize(("ask", "side"), FLOWS)
def test_no_handshake_survives_a_change_of_a_byte(ask: bool, side: str) -> None:
    for number, honest in enumerate(messages_of(ask)[side]):
        for at in places(honest, 250):
            client, server = fresh(ask)
            spoil({"client": client, "server": server}[side], replaced(number, partial(flipped, at)))
            outcome(client, server)
            assert not (client.complete and server.complete), f"byte {at} of {side}'s message {number}"


@pytest.mark.parametrize(("ask", "side"), FLOWS)
def test_each_message_out_of_place_is_unexpected(ask: bool, side: str) -> None:
    honest = messages_of(ask)[side]
    assert [message[0] for message in honest] == FLOWS[ask, side]
    for number, message in enumerate(honest):
        for kind in KINDS:
            if kind == message[0]:
                continue
            client, server = fresh(ask)
            change = partial(instead, [bytes((kind, 0, 0, 0))])
            spoil({"client": client, "server": server}[side], replaced(number, change))
            assert alert_of(outcome(client, server)[0]) == Alert.UNEXPECTED_MESSAGE


def test_a_client_that_shows_itself_unasked_is_held_to_the_same_order() -> None:
    honest = FLOWS[True, "client"]
    for number, expected in enumerate(honest):
        for kind in set(KINDS) - {expected}:
            client, server = ends(ask=False)
            spoil(client, replaced(number, partial(instead, [bytes((kind, 0, 0, 0))])))
            assert alert_of(outcome(client, server)[0]) == Alert.UNEXPECTED_MESSAGE


@pytest.mark.parametrize("ask", [True, False])
def test_after_completion_each_message_but_key_update_is_unexpected(ask: bool) -> None:
    def connected() -> tuple[Endpoint, Endpoint]:
        client, server = fresh(ask)
        connect(client, server)
        return client, server

    all_unexpected_after(connected)


def test_a_wrong_ciphertext_for_the_client_is_refused_by_its_length_or_at_finished() -> None:
    for ciphertext, alert in ((bytes(1087), Alert.ILLEGAL_PARAMETER), (bytes(1088), Alert.DECRYPT_ERROR)):
        client, server = ends()
        spoil(server, replaced(2, partial(instead, [encode_encapsulation(ciphertext)])))
        assert alert_of(outcome(client, server)[0]) == alert


def test_a_replayed_flight_never_completes() -> None:
    client, server = ends()
    client.handshake()
    flight = b"".join(client.take())
    _, other = ends()
    for replay in (server, other):
        replay.feed(flight)
        assert not replay.handshake()
        assert replay.take()


def test_a_stored_key_that_is_not_a_kem_is_a_value_error() -> None:
    other = MAKE_KEY["p256"]().public_key()
    spki = other.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    for wrong in (b"junk", spki):
        with pytest.raises(ValueError, match=r".+"):
            StoredKey(wrong, (HOST,), NOW + DAY).load()
