"""Parties of this stack: modes, foreign servers, the key log, and links over real sockets; and how fast records are."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from streams.errors import HandshakeFailed
from streams.security import modes, stacks
from streams.security.connecting import connect as connect_link
from streams.security.endpoint import Credentials, MlDsaFiles
from streams.security.listener import listen
from streams.security.modes import MODES, TLS12, TLS13, Mode
from streams.security.openssl.context import server_context
from streams.security.openssl.endpoint import OpenSSLEndpoint
from streams.security.tls13 import party
from streams.security.transport import Link
from tests.streams.security.tls13.support import (
    HOST,
    Authority,
    connect,
    exchange,
    our_client,
    our_server,
)
from tests.support.installation import eventually

CLIENT = "spiffe://test/forwarder"
OURS = {
    name: msgspec.structs.replace(mode, stack="tls13")
    for name, mode in MODES.items()
    if mode.version != TLS12 and mode.stack != "tls13"
}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Credentials, Credentials]:
    """Files of both kinds for a client and a server."""
    directory, authority, strong = tmp_path_factory.mktemp("pki"), Authority(), Authority("mldsa65")

    def issued(side: str, name: str) -> Credentials:
        post_quantum = strong.issue(directory / side / "mldsa", "mldsa65", [name])
        files = MlDsaFiles(post_quantum.certificate, post_quantum.key, post_quantum.ca)
        return msgspec.structs.replace(authority.issue(directory / side, names=[name]), mldsa=files)

    return issued("client", CLIENT), issued("server", HOST)


@pytest.mark.parametrize("mode", OURS.values(), ids=lambda mode: mode.name)
def test_a_mode_is_kept_with_openssl_on_the_other_side(mode: Mode, both: tuple[Credentials, Credentials]) -> None:
    original = MODES[mode.name]
    for client, server in (
        (stacks.client(mode, both[0]), stacks.server([original], both[1])),
        (stacks.client(original, both[0]), stacks.server([mode], both[1])),
        (stacks.client(mode, both[0]), stacks.server([mode], both[1])),
    ):
        one, other = client.endpoint(HOST), server.endpoint()
        connect(one, other)
        for end in (one, other):
            modes.check(mode, end.facts())


def test_a_listener_of_several_modes_takes_the_best_group(both: tuple[Credentials, Credentials]) -> None:
    server = stacks.server(list(OURS.values()), both[1])
    for mode in OURS.values():
        one, other = stacks.client(mode, both[0]).endpoint(HOST), server.endpoint()
        connect(one, other)
        assert one.facts().group == mode.groups[0]


def test_this_stack_passes_its_own_self_test_and_shares_no_port() -> None:
    stacks.self_test(OURS.values())
    assert stacks.common_stack(OURS.values()) == "tls13"


KEMTLS = Mode(
    name="kems",
    version=TLS13,
    groups=("X25519MLKEM768",),
    authentication=("ML-KEM-768", "mldsa65"),
    stack="tls13",
)


def kem_files(directory: Path) -> tuple[Credentials, Credentials]:
    authority = Authority("mldsa65")
    client = authority.issue(
        directory / "a", "mlkem768", [CLIENT], key_usage="key_encipherment", purposes=[ExtendedKeyUsageOID.CLIENT_AUTH]
    )
    server = authority.issue(
        directory / "b", "mlkem768", [HOST], key_usage="key_encipherment", purposes=[ExtendedKeyUsageOID.SERVER_AUTH]
    )
    return client, server


def test_a_mode_that_names_a_kem_authenticates_by_it(tmp_path: Path) -> None:
    ours, theirs = kem_files(tmp_path)
    for files in (ours, theirs):
        party.check(files)
    client, server = stacks.client(KEMTLS, ours).endpoint(HOST), stacks.server([KEMTLS], theirs).endpoint()
    connect(client, server)
    exchange(client, server)
    for end in (client, server):
        modes.check(KEMTLS, end.facts())
        assert end.facts().authentication == "ML-KEM-768"
        assert end.facts().certificate_algorithm == "ML-KEM-768"


def test_a_key_of_the_other_kind_is_refused_for_a_mode(both: tuple[Credentials, Credentials], tmp_path: Path) -> None:
    ours, _ = kem_files(tmp_path)
    with pytest.raises(ValueError, match="not of the kind that kems authenticates with"):
        stacks.client(KEMTLS, both[0])
    with pytest.raises(ValueError, match="not of the kind that hybrid authenticates with"):
        stacks.client(OURS["hybrid"], ours)


def test_tls_1_2_is_not_spoken(both: tuple[Credentials, Credentials]) -> None:
    with pytest.raises(ValueError, match=r"TLS 1\.3 alone"):
        party.client(MODES["classical-tls12"], both[0])
    old, server = stacks.client(MODES["classical-tls12"], both[0]).endpoint(HOST), our_server(both[1])
    with pytest.raises(HandshakeFailed) as caught:
        connect(old, server)
    assert caught.value.reason == "protocol_version"


def test_a_client_must_name_its_server(both: tuple[Credentials, Credentials]) -> None:
    made = party.client(OURS["hybrid"], both[0])
    with pytest.raises(ValueError, match="must name the server"):
        made.endpoint()
    with pytest.raises(ValueError, match="invalid domain name"):
        made.endpoint("not_a_name")


def test_a_foreign_server_is_spoken_to_without_our_protocol(both: tuple[Credentials, Credentials]) -> None:
    context = server_context([MODES["hybrid"]], both[1])
    context.set_alpn_select_callback(lambda *_: pytest.fail("no protocol is offered"))
    server = OpenSSLEndpoint(context, server_side=True, alpn=None)
    client = party.foreign(modes.foreign(OURS["hybrid"]), both[0]).endpoint(HOST)
    connect(client, server)
    exchange(client, server)


@pytest.mark.parametrize("asks", [True, False])
def test_foreign_clients_get_the_protocol_they_offer_and_need_a_certificate_only_if_asked(
    asks: bool, both: tuple[Credentials, Credentials]
) -> None:
    files = both[1]
    made = stacks.foreign_server(
        [OURS["hybrid"]],
        section="source.tls",
        certificate=files.certificate,
        key=files.key,
        ca=files.ca if asks else None,
        alpn=b"http/1.1",
    )
    for offered in (b"http/1.1", b"h2", None):
        client = our_client(both[0], groups=("X25519MLKEM768",), alpn=None)
        if offered is not None:
            client = our_client(both[0], groups=("X25519MLKEM768",), alpn=offered)
        server = made.endpoint()
        if offered == b"h2":
            with pytest.raises(HandshakeFailed):
                connect(client, server)
            continue
        connect(client, server)
        assert server.facts().identities == ((CLIENT,) if asks else ())
    stranger = our_client(both[0], credential=None, alpn=None)
    server = made.endpoint()
    if asks:
        with pytest.raises(HandshakeFailed) as caught:
            connect(stranger, server)
        assert caught.value.reason == "no_client_certificate"
    else:
        connect(stranger, server)


def test_a_server_of_several_modes_shows_each_client_the_certificate_that_it_accepts(tmp_path: Path) -> None:
    classical, strong = Authority("p256"), Authority("mldsa65")
    ours = [classical.issue(tmp_path / "a", names=[CLIENT]), strong.issue(tmp_path / "b", "mldsa65", [CLIENT])]
    theirs = [classical.issue(tmp_path / "c"), strong.issue(tmp_path / "d", "mldsa65")]
    served = [OURS["hybrid"], OURS["pq-auth"]]
    server = party.server(served, *theirs)
    for mode, files in zip(served, ours, strict=True):
        one, other = party.client(mode, files).endpoint(HOST), server.endpoint()
        connect(one, other)
        for end in (one, other):
            modes.check(mode, end.facts())


def test_the_key_log_has_the_secrets_that_openssl_has(both: tuple[Credentials, Credentials], tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    client = party.client(OURS["hybrid"], both[0], key_log=ours).endpoint(HOST)
    server = OpenSSLEndpoint(server_context([MODES["hybrid"]], both[1], key_log=theirs), server_side=True)
    connect(client, server)
    lines = set(ours.read_text().splitlines())
    assert {line.split()[0] for line in lines} == {
        "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
        "SERVER_HANDSHAKE_TRAFFIC_SECRET",
        "CLIENT_TRAFFIC_SECRET_0",
        "SERVER_TRAFFIC_SECRET_0",
    }
    assert lines <= set(theirs.read_text().splitlines())
    assert ours.stat().st_mode & 0o777 == 0o600


async def test_links_over_sockets_carry_data_both_ways_and_say_goodbye(both: tuple[Credentials, Credentials]) -> None:
    served: list[Link] = []

    async def serve(link: Link) -> None:
        served.append(link)
        while data := await link.receive():
            link.write(data)
            await link.drain()
        await link.close()

    server = stacks.server([OURS["hybrid"]], both[1])
    listener = await listen("localhost:0", server, serve, on_failure=lambda *_: None)
    try:
        client = stacks.client(OURS["hybrid"], both[0])
        link = await connect_link(listener.address, client, server_name=HOST)
        text, back = bytes(range(256)) * 16384, bytearray()
        link.write(text)
        async with asyncio.timeout(30):
            while len(back) < len(text):
                back += await link.receive()
        assert bytes(back) == text
        assert (link.facts.identities, served[0].facts.identities) == ((HOST,), (CLIENT,))
        await link.close()
    finally:
        await listener.close()


async def test_a_refusal_over_sockets_names_its_reason_on_one_side_and_the_alert_on_the_other(
    both: tuple[Credentials, Credentials], tmp_path: Path
) -> None:
    failures: list[HandshakeFailed] = []

    async def serve(link: Link) -> None:
        await link.close()

    stranger = Authority().issue(tmp_path, names=[CLIENT])
    theirs = msgspec.structs.replace(stranger, ca=both[0].ca)
    server = stacks.server([OURS["hybrid"]], both[1])
    listener = await listen("localhost:0", server, serve, on_failure=lambda _, error: failures.append(error))
    try:
        link = await connect_link(listener.address, stacks.client(OURS["hybrid"], theirs), server_name=HOST)
        with pytest.raises(HandshakeFailed) as heard:
            await link.receive()
        assert heard.value.alert == "unknown ca"
        await eventually(lambda: failures)
        assert [failure.reason for failure in failures] == ["unknown_ca"]
    finally:
        await listener.close()
