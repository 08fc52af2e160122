"""A party as an SSLContext: what a library that wants one gets, and what is told of its handshakes."""

from __future__ import annotations

import contextlib
import ssl

import pytest
from structlog.testing import capture_logs

from streams.errors import HandshakeFailed
from streams.security import modes, stacks
from streams.security.endpoint import Facts
from streams.security.modes import MODES
from streams.security.openssl import party as openssl
from streams.security.openssl.context import server_context
from streams.security.openssl.endpoint import OpenSSLEndpoint
from streams.security.sslcontext import PartyContext
from tests.support.tls import Parties, issue


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Parties:
    return Parties(tmp_path_factory.mktemp("pki"))


class Seen(list[str]):
    """What a context tells of its handshakes."""

    def complete(self, mode: modes.Mode, facts: Facts) -> None:
        self.append(f"{mode.name} complete over {facts.group}")

    def failed(self, mode: modes.Mode, reason: str) -> None:
        self.append(f"{mode.name} failed: {reason}")


@pytest.mark.parametrize(("demanded", "enough"), [("hybrid", True), ("classical", False)])
def test_a_library_that_wants_an_ssl_context_gets_no_link_weaker_than_its_mode(
    parties: Parties, demanded: str, enough: bool
) -> None:
    hybrid = MODES["hybrid"]
    context = PartyContext.of(modes.foreign(MODES[demanded]), openssl.foreign(hybrid, parties.forwarder))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    seen = context.witness = Seen()
    near = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    far = OpenSSLEndpoint(server_context([hybrid], parties.receiver), server_side=True, alpn=None)
    with pytest.raises(ssl.SSLWantReadError):
        near.do_handshake()
    far.feed(outgoing.read())
    far.handshake()
    for part in far.take():
        incoming.write(part)
    if enough:
        near.do_handshake()
        assert seen == ["hybrid complete over X25519MLKEM768"]
        return
    with pytest.raises(ssl.SSLError, match=r"mode classical demands TLSv1\.3 with X25519, the link has"):
        near.do_handshake()
    assert seen == ["classical failed: policy"]


def test_the_alert_by_which_a_server_ends_a_connection_later_is_told(parties: Parties) -> None:
    mode = MODES["hybrid"]
    context = stacks.anonymous_context(mode, "sink.tls", parties.forwarder.ca)
    assert isinstance(context, PartyContext)
    seen = context.witness = Seen()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    far = OpenSSLEndpoint(server_context([mode], parties.receiver), server_side=True, alpn=None)
    with pytest.raises(ssl.SSLWantReadError):
        near.do_handshake()
    for _ in range(2):
        far.feed(outgoing.read())
        with contextlib.suppress(HandshakeFailed):
            far.handshake()
        for part in far.take():
            incoming.write(part)
        if len(seen) == 0:
            near.do_handshake()
    with pytest.raises(ssl.SSLError, match="certificate required"), capture_logs() as events:
        near.read()
    assert seen == ["hybrid complete over X25519MLKEM768", "hybrid failed: alert_received"]
    assert [event["event"] for event in events] == ["handshake failed"]
    assert "certificate required" in context.take_failure()
    assert context.take_failure() == ""


def test_an_ssl_context_checks_the_name_of_its_server(parties: Parties) -> None:
    context = stacks.ssl_context(MODES["hybrid"], parties.forwarder)
    with pytest.raises(ValueError, match="must name the server"):
        context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO())


@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_a_server_that_speaks_tls_1_2_alone_is_reached_whatever_its_key(parties: Parties, kind: str) -> None:
    leaf = issue(parties.authority, f"old-{kind}", identities=["old"], hosts=["localhost"], kind=kind, role="both")
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.maximum_version = ssl.TLSVersion.TLSv1_2
    serving.load_cert_chain(leaf.certificate, leaf.key)
    context = stacks.anonymous_context(MODES["classical-tls12"], "sink.tls", parties.forwarder.ca)
    incoming, outgoing, theirs = ssl.MemoryBIO(), ssl.MemoryBIO(), ssl.MemoryBIO()
    near = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    far = serving.wrap_bio(theirs, incoming, server_side=True)
    for side in (near, far, near, far, near):
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
        theirs.write(outgoing.read())
    near.write(b"ping")
    theirs.write(outgoing.read())
    assert (far.read(), far.version()) == (b"ping", "TLSv1.2")
