"""The contract that every TLS stack keeps towards links, and the one without TLS that unit tests use."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import pytest

from streams.errors import LinkError
from streams.security import stacks
from streams.security.endpoint import Endpoint, Party
from streams.security.modes import MODES, TLS13
from streams.security.openssl.endpoint import WRITE_BYTES, OpenSSLEndpoint
from tests.support.plaintext import FORWARDER, PlaintextParty
from tests.support.tls import Parties

Pair = Callable[[], tuple[Party, Party]]


OURS = {
    f"{name} by tls13": msgspec.structs.replace(mode, stack="tls13")
    for name, mode in MODES.items()
    if mode.version == TLS13 and mode.stack != "tls13"
}
"""The same modes, served by our own stack."""


@pytest.fixture(scope="module", params=[*MODES, *OURS, "plaintext"])
def parties(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Party, Party]:
    """The connecting and the accepting side."""
    if request.param == "plaintext":
        return PlaintextParty(), PlaintextParty(FORWARDER)
    files, mode = Parties(tmp_path_factory.mktemp("pki")), {**MODES, **OURS}[request.param]
    return stacks.client(mode, files.forwarder), stacks.server([mode], files.receiver)


def carry(one: Endpoint, other: Endpoint, *, pieces: int = 1 << 20) -> None:
    """What one end has to send reaches the other, in pieces of at most this size."""
    for part in one.take():
        for start in range(0, len(part), pieces):
            other.feed(part[start : start + pieces])


def connected(parties: tuple[Party, Party], *, pieces: int = 1 << 20) -> tuple[Endpoint, Endpoint]:
    near, far = parties[0].endpoint("localhost"), parties[1].endpoint()
    assert not near.complete
    for _ in range(8):
        for one, other in ((near, far), (far, near)):
            if not one.complete:
                assert one.handshake() is one.complete
            carry(one, other, pieces=pieces)
    assert near.complete
    assert far.complete
    return near, far


def test_both_ends_know_whom_they_talk_to_and_how(parties: tuple[Party, Party]) -> None:
    near, far = connected(parties)
    assert near.facts(0.25).connect_seconds == 0.25
    for end, identity in ((near, "receiver"), (far, "spiffe://test/forwarder")):
        facts = end.facts()
        assert facts.identities[0] == identity
        assert any(
            (facts.version, facts.group) == (mode.version, mode.groups[0])
            and facts.authentication in mode.authentication
            for mode in MODES.values()
        )
        assert facts.certificate_expires is not None


@pytest.mark.parametrize("pieces", [1, 1 << 20])
def test_data_arrives_whole_and_in_order_both_ways(parties: tuple[Party, Party], pieces: int) -> None:
    near, far = connected(parties)
    for one, other in ((near, far), (far, near)):
        assert other.read() == b""
        sent: Sequence[bytes | bytearray | memoryview] = [
            b"a",
            bytes(range(256)) * 200,
            bytearray(b"b" * 3),
            memoryview(b"c"),
        ]
        for part in sent:
            one.write(part)
        carry(one, other, pieces=pieces)
        received = b""
        while data := other.read():
            received += data
        assert received == b"".join(bytes(part) for part in sent)


def test_what_is_written_leaves_in_pieces_so_that_no_large_buffer_stays(parties: tuple[Party, Party]) -> None:
    near, _ = connected(parties)
    near.write(bytes(500_000))
    parts = near.take()
    if isinstance(near, OpenSSLEndpoint):
        assert max(map(len, parts)) < 2 * WRITE_BYTES < 200_000
    assert sum(map(len, parts)) >= 500_000


def test_what_is_written_may_be_changed_afterwards(parties: tuple[Party, Party]) -> None:
    near, far = connected(parties)
    buffer = bytearray(b"before")
    near.write(buffer)
    buffer[:] = b"after!"
    cipher = [bytearray(part) for part in near.take()]
    for part in cipher:
        far.feed(part)
        part[:] = bytes(len(part))
    assert far.read() == b"before"


def test_a_goodbye_follows_the_data_and_is_the_end(parties: tuple[Party, Party]) -> None:
    near, far = connected(parties)
    near.write(b"last")
    near.close()
    carry(near, far)
    assert [far.read(), far.read(), far.read()] == [b"last", None, None]


def test_a_connection_that_ends_without_a_goodbye_was_cut(parties: tuple[Party, Party]) -> None:
    near, far = connected(parties)
    near.write(b"last")
    carry(near, far)
    far.feed_eof()
    assert far.read() == b"last"
    for _ in range(2):
        with pytest.raises(LinkError):
            far.read()


def test_a_handshake_survives_any_cut_of_its_bytes(parties: tuple[Party, Party]) -> None:
    near, far = connected(parties, pieces=1)
    near.write(b"x")
    carry(near, far)
    assert far.read() == b"x"


def test_a_party_knows_when_it_expires(parties: tuple[Party, Party]) -> None:
    for party in parties:
        assert party.expires.tzinfo is not None
