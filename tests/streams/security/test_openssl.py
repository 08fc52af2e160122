"""The endpoint over OpenSSL, in memory: what it refuses, what it reports of a peer, what it writes to disk."""

from __future__ import annotations

import contextlib
import datetime
import ssl
import stat
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from streams.errors import HandshakeFailed, LinkError
from streams.security import modes, stacks
from streams.security.authentication import signed_with
from streams.security.endpoint import Credentials, Endpoint, Party
from streams.security.modes import MODES
from streams.security.openssl import party as openssl
from streams.security.openssl.context import client_context, server_context
from streams.security.openssl.endpoint import FEED_BYTES, OpenSSLEndpoint
from tests.support.tls import Parties

ROUNDS = 8


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Parties:
    return Parties(tmp_path_factory.mktemp("pki"))


def pass_on(one: Endpoint, other: Endpoint) -> int:
    """Carry what one end has written to the other."""
    parts = one.take()
    for part in parts:
        other.feed(part)
    return sum(map(len, parts))


def shake_hands(near: Endpoint, far: Endpoint) -> None:
    """Complete a handshake between two endpoints, and what a server sends after it."""
    for _ in range(ROUNDS):
        for one, other in ((near, far), (far, near)):
            if not one.complete:
                one.handshake()
            pass_on(one, other)
        if near.complete and far.complete:
            assert near.read() == b""
            return
    raise AssertionError("the handshake does not end")


def joined(client: Party, server: Party) -> tuple[Endpoint, Endpoint]:
    near, far = client.endpoint("localhost"), server.endpoint()
    shake_hands(near, far)
    return near, far


@pytest.mark.parametrize("mode", ["hybrid", "classical-tls12"])
def test_a_session_is_never_resumed(parties: Parties, mode: str) -> None:
    client = client_context(MODES[mode], parties.forwarder)
    server = server_context([MODES[mode]], parties.receiver)
    first, its_server = (
        OpenSSLEndpoint(client, server_side=False, host="localhost"),
        OpenSSLEndpoint(server, server_side=True),
    )
    shake_hands(first, its_server)
    its_server.write(b"tickets would come with this")
    pass_on(its_server, first)
    assert first.read() == b"tickets would come with this"
    session = first._connection.get_session()
    assert session is not None
    again = OpenSSLEndpoint(client, server_side=False, host="localhost")
    again._connection.set_session(session)
    far = OpenSSLEndpoint(server, server_side=True)
    shake_hands(again, far)
    for end in (again, far):
        assert not SSL._lib.SSL_session_reused(end._connection._ssl)  # type: ignore[attr-defined]


RECORD_BYTES = 5 + 1 + 16
"""What a record of TLS 1.3 has around its data."""


@pytest.mark.parametrize("name", ["localhost", None], ids=["a name", "no name"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_server_sends_no_tickets(parties: Parties, version: ssl.TLSVersion, name: str | None) -> None:
    """A client that never reads would close its connection with unread bytes: the system then drops what it sent."""
    context = ssl.create_default_context(cafile=str(parties.receiver.ca))
    context.check_hostname = name is not None
    context.maximum_version = version
    context.load_cert_chain(parties.forwarder.certificate, parties.forwarder.key)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = context.wrap_bio(incoming, outgoing, server_hostname=name)
    served = [MODES["classical"], MODES["classical-tls12"]]
    far = OpenSSLEndpoint(server_context(served, parties.receiver), server_side=True, alpn=None)
    while not far.complete:
        incoming.write(b"".join(far.take()))
        with contextlib.suppress(ssl.SSLWantReadError):
            near.do_handshake()
        far.feed(outgoing.read())
        far.handshake()
    if version == ssl.TLSVersion.TLSv1_3:
        assert far.take() == []
    incoming.write(b"".join(far.take()))
    near.do_handshake()
    near.write(b"log line")
    far.feed(outgoing.read())
    assert far.read() == b"log line"
    assert far.take() == []
    far.write(b"answer")
    incoming.write(b"".join(far.take()))
    assert near.read() == b"answer"
    assert near.session is None or not near.session.has_ticket


@pytest.mark.parametrize("mode", ["hybrid", "hybrid-p256", "pq-auth"])
@pytest.mark.parametrize("shares_first", [True, False], ids=["at once", "after a HelloRetryRequest"])
def test_a_server_sends_no_tickets_in_any_mode_nor_after_it_has_asked_for_another_share(
    parties: Parties, mode: str, shares_first: bool
) -> None:
    files = next(each for each in parties.forwarder.sections() if each.section == MODES[mode].section)
    context = client_context(MODES[mode], files)
    if not shares_first:
        groups = f"X25519:{MODES[mode].groups[0]}".encode()
        assert SSL._lib.SSL_CTX_set1_curves_list(context._context, groups) == 1  # type: ignore[attr-defined]
    near = OpenSSLEndpoint(context, server_side=False, host="localhost")
    far = stacks.server([MODES[mode]], parties.receiver).endpoint()
    flights = 0
    while not (near.complete and far.complete):
        near.complete or near.handshake()
        pass_on(near, far)
        far.complete or far.handshake()
        assert pass_on(far, near) == 0 or not far.complete, "a server that is done has nothing to say"
        flights += 1
    assert flights == (2 if shares_first else 3)
    far.write(b"answer")
    assert pass_on(far, near) == RECORD_BYTES + len(b"answer")
    assert near.read() == b"answer"


def test_what_comes_at_once_makes_no_large_buffer_that_the_link_keeps(parties: Parties) -> None:
    hybrid = MODES["hybrid"]
    near, far = joined(stacks.client(hybrid, parties.forwarder), stacks.server([hybrid], parties.receiver))
    assert isinstance(far, OpenSSLEndpoint)
    said = [bytes([number]) * 250_000 for number in range(2)]
    near.write(said[0])
    far.feed(b"".join(near.take()))
    assert far._waiting(far._connection._into_ssl) <= FEED_BYTES
    near.write(said[1])
    far.feed(b"".join(near.take()))  # before the first is read
    heard = b""
    while part := far.read():
        heard += part
    assert heard == b"".join(said)


def test_a_peer_that_renegotiates_is_refused(parties: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
    mode = MODES["classical-tls12"]
    with monkeypatch.context() as patch:
        patch.setattr(SSL, "OP_NO_RENEGOTIATION", 0)
        context = client_context(mode, parties.forwarder)
    near = OpenSSLEndpoint(context, server_side=False, host="localhost")
    far = stacks.server([mode], parties.receiver).endpoint()
    shake_hands(near, far)
    near._connection.renegotiate()
    with pytest.raises(SSL.WantReadError):
        near._connection.do_handshake()
    assert pass_on(near, far) > 0
    assert far.read() == b""
    pass_on(far, near)
    with pytest.raises(SSL.Error, match="no renegotiation"):
        near._connection.do_handshake()


def test_the_secrets_of_a_key_log_are_for_its_owner_alone(parties: Parties, tmp_path: Path) -> None:
    log = tmp_path / "keys"
    client = openssl.client(MODES["hybrid"], parties.forwarder, key_log=log)
    joined(client, stacks.server([MODES["hybrid"]], parties.receiver))
    assert "CLIENT_TRAFFIC_SECRET_0 " in log.read_text()
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def issue(
    parties: Parties,
    name: str,
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
    *,
    common_name: str = "",
    san: x509.GeneralName = x509.DNSName("localhost"),  # noqa: B008 — it is immutable
) -> Credentials:
    """A leaf for localhost with a key, or with names, of another kind than the project's own."""
    now = datetime.datetime.now(datetime.UTC)
    leaf = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else []))
        .issuer_name(parties.authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([san]), critical=not common_name)
        .sign(parties.authority._key, hashes.SHA256())
    )
    files = Credentials(
        parties.directory / f"{name}.pem", parties.directory / f"{name}.key", parties.directory / "ca.pem"
    )
    files.certificate.write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    files.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


def test_a_common_name_is_no_name_of_a_host(parties: Parties) -> None:
    key, uri = ec.generate_private_key(ec.SECP256R1()), x509.UniformResourceIdentifier("spiffe://test/some-forwarder")
    forged = issue(parties, "common", key, common_name="localhost", san=uri)
    with pytest.raises(HandshakeFailed, match="hostname mismatch") as caught:
        joined(stacks.client(MODES["hybrid"], parties.forwarder), stacks.server([MODES["hybrid"]], forged))
    assert caught.value.reason == "host_mismatch"


def test_a_client_of_another_protocol_gets_the_alert_that_says_so(parties: Parties) -> None:
    context = client_context(MODES["hybrid"], parties.forwarder)
    context.set_alpn_protos([b"h2"])
    near = OpenSSLEndpoint(context, server_side=False, host="localhost", alpn=None)
    far = stacks.server([MODES["hybrid"]], parties.receiver).endpoint()
    with pytest.raises(HandshakeFailed, match="does not speak logfwd/1") as refused:
        shake_hands(near, far)
    assert refused.value.reason == "alpn"
    pass_on(far, near)
    with pytest.raises(HandshakeFailed) as heard:
        near.handshake()
    assert heard.value.alert == "no application protocol"
    joined(stacks.client(MODES["hybrid"], parties.forwarder), stacks.server([MODES["hybrid"]], parties.receiver))


@pytest.mark.parametrize("stack", ["openssl", "tls13"])
def test_a_certificate_is_refused_in_the_other_role(parties: Parties, stack: str) -> None:
    hybrid = msgspec.structs.replace(MODES["hybrid"], stack=stack)
    forwarder, receiver, both = (
        parties.leaf(f"{role}-alone", role=role, identities=["spiffe://test/x"], hosts=["localhost"], force=True)
        for role in ("forwarder", "receiver", "both")
    )
    joined(stacks.client(hybrid, forwarder), stacks.server([hybrid], receiver))
    joined(stacks.client(hybrid, both), stacks.server([hybrid], both))
    for near, far in ((receiver, receiver), (forwarder, forwarder)):
        with pytest.raises(HandshakeFailed) as caught:
            joined(stacks.client(hybrid, near), stacks.server([hybrid], far))
        assert caught.value.reason == "certificate_invalid"


def test_a_peer_is_reported_with_the_algorithm_that_authenticated_it(parties: Parties) -> None:
    longer = issue(parties, "p384", ec.generate_private_key(ec.SECP384R1()))
    hybrid = MODES["hybrid"]
    near, far = joined(stacks.client(hybrid, parties.forwarder), stacks.server([hybrid], longer))
    assert near.facts().authentication == "ecdsa_secp384r1_sha384"
    assert far.facts().authentication == "ecdsa_secp256r1_sha256"
    for end in (near, far):
        modes.check(hybrid, end.facts())
    assert near.facts().log_fields()["authentication"] == "ecdsa_secp384r1_sha384"


def test_a_server_with_an_rsa_key_is_good_enough_for_a_foreign_hop_alone(parties: Parties) -> None:
    broker = issue(parties, "rsa", rsa.generate_private_key(65537, 2048))
    foreign = modes.foreign(MODES["hybrid"])
    server = openssl.server([foreign], broker)
    near = openssl.foreign(foreign, parties.forwarder).endpoint("localhost")
    far = OpenSSLEndpoint(server._context, server_side=True, alpn=None)
    shake_hands(near, far)
    assert near.facts().authentication == "rsa_pss_rsae_sha256"
    modes.check(foreign, near.facts())
    with pytest.raises(LinkError, match="demands a peer authenticated by"):
        modes.check(MODES["hybrid"], near.facts())
    with pytest.raises(HandshakeFailed, match="no suitable signature algorithm"):
        joined(stacks.client(MODES["hybrid"], parties.forwarder), server)


@pytest.mark.parametrize(
    ("key", "scheme"),
    [
        ("EC secp256r1", "ecdsa_secp256r1_sha256"),
        ("ML-DSA-65", "mldsa65"),
        ("RSA 3072", "rsa_pss_rsae_sha256"),
        ("1.2.3.4", "1.2.3.4"),
        ("none", "none"),
    ],
)
def test_the_kind_of_a_key_names_its_signature_scheme(key: str, scheme: str) -> None:
    assert signed_with(key) == scheme


def test_a_connecting_party_must_name_its_server(parties: Parties) -> None:
    with pytest.raises(ValueError, match="must name the server"):
        stacks.client(MODES["hybrid"], parties.forwarder).endpoint()


def test_a_party_expires_with_its_certificate(parties: Parties) -> None:
    short = parties.leaf("short", identities=["x"], hosts=["localhost"], days=2)
    left = stacks.server([MODES["hybrid"]], short).expires - datetime.datetime.now(datetime.UTC)
    assert datetime.timedelta(days=1, hours=23) < left <= datetime.timedelta(days=2, minutes=5)
