"""Peers that say anything: both sides end with a typed error or wait; a changed handshake never completes on both."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

from hypothesis import given, settings
from hypothesis import strategies as st

from streams.security.tls13.endpoint import Tls13Endpoint
from streams.security.tls13.signature import Credential, Signature
from tests.streams.security.tls13 import test_delegated as delegated
from tests.streams.security.tls13 import test_kemtls as kemtls
from tests.streams.security.tls13 import test_pdk as pdk
from tests.streams.security.tls13.support import HOST, client_of, connect, server_of
from tests.streams.security.tls13.tampering import outcome, replaced, spoil

Pair = tuple[Tls13Endpoint, Tls13Endpoint]


def signing() -> Pair:
    way = partial(Signature, delegated.EVERY, delegated_schemes=delegated.EVERY)
    client, server = _credentials()
    return (
        client_of(delegated.settings(way(credential=client))),
        server_of(delegated.settings(way(credential=server))),
    )


@cache
def _credentials() -> tuple[Credential, Credential]:
    return delegated.signing(delegated.NAME), delegated.signing(HOST)


FLOWS: dict[str, Callable[[], Pair]] = {
    "signatures": signing,
    "kemtls": kemtls.ends,
    "kemtls after a retry": partial(kemtls.ends, retry=True),
    "pdk": pdk.ends,
}


@cache
def sizes(flow: str, side: str) -> list[int]:
    """The lengths of a side's messages in an honest handshake."""
    client, server = FLOWS[flow]()
    seen: list[int] = []

    def note(_: int, messages: list[bytes]) -> list[bytes]:
        seen.extend(map(len, messages))
        return messages

    spoil(client if side == "client" else server, note)
    connect(client, server)
    return seen


Mutation = Callable[[bytes], bytes]


def _flip(at: int, change: int, message: bytes) -> bytes:
    at %= len(message)
    return message[:at] + bytes((message[at] ^ change,)) + message[at + 1 :]


def _cut(at: int, size: int, message: bytes) -> bytes:
    at %= len(message)
    return message[:at] + message[at + size :]


def _insert(at: int, data: bytes, message: bytes) -> bytes:
    at %= len(message)
    return message[:at] + data + message[at:]


def _mend(message: bytes) -> bytes:
    """The header's length is made right, so that the change is found deeper."""
    return message[:1] + max(len(message) - 4, 0).to_bytes(3) + message[4:] if len(message) >= 4 else b"\x01\0\0\0"


PLACES = st.integers(0, 9000)
MUTATIONS = st.one_of(
    st.builds(partial, st.just(_flip), PLACES, st.integers(1, 255)),
    st.builds(partial, st.just(_cut), PLACES, st.integers(1, 40)),
    st.builds(partial, st.just(_insert), PLACES, st.binary(min_size=1, max_size=20)),
)


@settings(max_examples=300)
@given(
    st.sampled_from(sorted(FLOWS)),
    st.sampled_from(["client", "server"]),
    st.integers(0, 5),
    st.lists(MUTATIONS, min_size=1, max_size=4),
    st.booleans(),
)
def test_changed_messages_end_in_typed_errors(
    flow: str, side: str, number: int, mutations: list[Mutation], mend: bool
) -> None:
    client, server = FLOWS[flow]()
    number %= len(sizes(flow, side))
    changed = False

    def mutate(message: bytes) -> list[bytes]:
        nonlocal changed
        spoiled = message
        for mutation in mutations:
            spoiled = mutation(spoiled) or b"\0"
        if mend:
            spoiled = _mend(spoiled)
        changed = spoiled != message
        return [spoiled]

    spoil(client if side == "client" else server, replaced(number, mutate))
    outcome(client, server)
    assert not (changed and client.complete and server.complete)


@given(st.sampled_from(sorted(FLOWS)), st.sampled_from([0, 1]), st.lists(st.binary(max_size=80), max_size=5))
def test_any_bytes_on_the_wire_end_in_typed_errors(flow: str, which: int, pieces: list[bytes]) -> None:
    ends = FLOWS[flow]()
    one, other = ends[which], ends[1 - which]
    for piece in pieces:
        one.feed(piece)
        outcome(one, other)
