"""Against OpenSSL, as client and as server: groups, suites, keys, HelloRetryRequest, client certificates or none."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.errors import HandshakeFailed
from streams.security.endpoint import Credentials
from streams.security.openssl.context import foreign_context
from streams.security.openssl.endpoint import OpenSSLEndpoint
from tests.streams.security.tls13.support import (
    ALPN,
    EVERY_MODE,
    HOST,
    SCHEME_OF,
    Authority,
    connect,
    exchange,
    openssl_client,
    openssl_server,
    our_client,
    our_server,
    received,
)

GROUPS = {
    "X25519MLKEM768": "X25519MLKEM768",
    "SecP256r1MLKEM768": "SecP256r1MLKEM768",
    "X25519": "X25519",
    "secp256r1": "P-256",
}
SUITES = {
    0x1301: "TLS_AES_128_GCM_SHA256",
    0x1302: "TLS_AES_256_GCM_SHA384",
    0x1303: "TLS_CHACHA20_POLY1305_SHA256",
}
CLIENT = "spiffe://test/forwarder"


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Credentials, Credentials]:
    """A client's files and a server's."""
    directory, authority = tmp_path_factory.mktemp("pki"), Authority()
    return authority.issue(directory / "client", names=[CLIENT]), authority.issue(directory / "server")


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("group", GROUPS)
def test_our_client_speaks_with_openssl(group: str, suite: int, both: tuple[Credentials, Credentials]) -> None:
    client = our_client(both[0], groups=(group,), suites=(suite,))
    server = openssl_server(both[1], GROUPS[group])
    connect(client, server)
    for facts in (client.facts(), server.facts()):
        assert (facts.version, facts.group, facts.cipher) == ("TLSv1.3", group, SUITES[suite])
    assert client.facts().identities == (HOST,)
    assert server.facts().identities == (CLIENT,)
    assert (client.bytes_in, client.bytes_out) == (server.bytes_out, server.bytes_in)
    exchange(client, server)


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("group", GROUPS)
def test_our_server_speaks_with_openssl(group: str, suite: int, both: tuple[Credentials, Credentials]) -> None:
    client = openssl_client(both[0], GROUPS[group], suite=SUITES[suite])
    server = our_server(both[1], groups=(group,))
    connect(client, server)
    for facts in (client.facts(), server.facts()):
        assert (facts.version, facts.group, facts.cipher) == ("TLSv1.3", group, SUITES[suite])
    assert client.facts().identities == (HOST,)
    assert server.facts().identities == (CLIENT,)
    assert (client.bytes_in, client.bytes_out) == (server.bytes_out, server.bytes_in)
    exchange(client, server)


@pytest.mark.parametrize("leaf", SCHEME_OF)
@pytest.mark.parametrize("authority", ["p256", "rsa", "mldsa44", "mldsa65"])
def test_each_kind_of_key_authenticates_both_ways(authority: str, leaf: str, tmp_path: Path) -> None:
    signer = Authority(authority)
    ours = signer.issue(tmp_path / "a", leaf, [CLIENT])
    theirs = signer.issue(tmp_path / "b", leaf)
    client, server = our_client(ours), openssl_server(theirs, "X25519MLKEM768")
    connect(client, server)
    exchange(client, server)
    again, other = openssl_client(ours, "X25519MLKEM768"), our_server(theirs)
    connect(again, other)
    exchange(again, other)
    expected = SCHEME_OF[leaf]
    if leaf.startswith("mldsa"):
        chain = {"p256": "ecdsa_secp256r1_sha256", "rsa": "rsa_pkcs1_sha256"}.get(authority, authority)
        expected = min(chain, leaf) if chain.startswith("mldsa") else chain
    assert client.facts().authentication == other.facts().authentication == expected


def test_an_intermediate_is_sent_and_followed(tmp_path: Path) -> None:
    root = Authority("p384", name="root")
    between = Authority("mldsa44", name="between", parent=root)
    ours = between.issue(tmp_path / "a", "mldsa65", [CLIENT], root=root)
    theirs = between.issue(tmp_path / "b", "mldsa65", root=root)
    for client, server in (
        (our_client(ours), openssl_server(theirs, "X25519MLKEM768")),
        (openssl_client(ours, "X25519MLKEM768"), our_server(theirs)),
    ):
        connect(client, server)
        exchange(client, server)
    assert our_authentication(ours, theirs) == "ecdsa_secp384r1_sha256"  # the root's signature below it


def our_authentication(ours: Credentials, theirs: Credentials) -> str:
    client, server = our_client(ours), our_server(theirs)
    connect(client, server)
    return server.facts().authentication


def test_our_client_sends_another_share_when_openssl_asks_for_it(both: tuple[Credentials, Credentials]) -> None:
    for wanted in ("X25519MLKEM768", "SecP256r1MLKEM768", "secp256r1"):
        client = our_client(both[0], groups=(wanted, "X25519"), shares=("X25519",))
        server = openssl_server(both[1], GROUPS[wanted])
        connect(client, server)
        assert client.facts().group == server.facts().group == wanted
        exchange(client, server)


def test_our_server_asks_openssl_for_a_better_share(both: tuple[Credentials, Credentials]) -> None:
    client = openssl_client(both[0], "*X25519:X25519MLKEM768")
    server = our_server(both[1])
    connect(client, server)
    assert client.facts().group == server.facts().group == "X25519MLKEM768"
    exchange(client, server)


def test_a_classical_share_is_taken_as_it_comes_if_no_hybrid_is_offered(both: tuple[Credentials, Credentials]) -> None:
    client = openssl_client(both[0], "*P-256:X25519")
    server = our_server(both[1])
    connect(client, server)
    assert server.facts().group == "secp256r1"
    assert server.bytes_in == client.bytes_out


def test_a_server_that_asks_for_no_certificate_gets_none(both: tuple[Credentials, Credentials]) -> None:
    client, server = our_client(both[0]), openssl_server(both[1], "X25519MLKEM768", mutual=False)
    connect(client, server)
    assert server.facts().identities == ()
    exchange(client, server)
    again, other = openssl_client(both[0], "X25519MLKEM768"), our_server(both[1], ask_client=False)
    connect(again, other)
    assert (other.facts().identities, other.facts().authentication) == ((), "none")
    exchange(again, other)


def test_a_client_without_a_certificate_hears_of_it_with_its_first_read(
    both: tuple[Credentials, Credentials],
) -> None:
    client, server = our_client(both[0], credential=None), openssl_server(both[1], "X25519MLKEM768")
    with pytest.raises(HandshakeFailed) as refused:
        connect(client, server)
    assert refused.value.reason == "no_client_certificate"
    assert client.complete
    with pytest.raises(HandshakeFailed) as heard:
        client.read()
    assert (heard.value.reason, heard.value.alert) == ("alert_received", "certificate required")


def test_our_server_refuses_a_client_without_a_certificate_and_says_so(both: tuple[Credentials, Credentials]) -> None:
    context = foreign_context(EVERY_MODE, both[0].ca)
    context.set_alpn_protos([ALPN])
    for client in (our_client(both[0], credential=None), OpenSSLEndpoint(context, server_side=False, host=HOST)):
        server = our_server(both[1])
        with pytest.raises(HandshakeFailed) as refused:
            connect(client, server)
        assert refused.value.reason == "no_client_certificate"
        with pytest.raises(HandshakeFailed) as heard:
            client.read()
        assert heard.value.alert == "certificate required"


def test_bytes_that_come_one_by_one_are_enough(both: tuple[Credentials, Credentials]) -> None:
    for client, server in (
        (our_client(both[0]), openssl_server(both[1], "X25519MLKEM768")),
        (openssl_client(both[0], "X25519MLKEM768"), our_server(both[1])),
    ):
        for _ in range(8):
            for one, other in ((client, server), (server, client)):
                if not one.complete:
                    one.handshake()
                for byte in b"".join(one.take()):
                    other.feed(bytes((byte,)))
                    if not other.complete:
                        other.handshake()
        assert client.complete
        assert server.complete
        client.write(b"one by one")
        for byte in b"".join(client.take()):
            server.feed(bytes((byte,)))
        assert received(server) == b"one by one"


def test_data_that_comes_with_the_last_flight_is_not_lost(both: tuple[Credentials, Credentials]) -> None:
    client, server = openssl_client(both[0], "X25519MLKEM768"), our_server(both[1])
    client.handshake()
    server.feed(b"".join(client.take()))
    server.handshake()
    client.feed(b"".join(server.take()))
    assert client.handshake()
    client.write(b"at once")
    server.feed(b"".join(client.take()))
    assert server.handshake()
    assert server.read() == b"at once"
    assert server.bytes_in == client.bytes_out
