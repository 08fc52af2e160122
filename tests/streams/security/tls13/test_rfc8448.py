"""RFC 8448's traces of whole handshakes, byte for byte: our client in all of them, our server where it sends no cookie.

Both sides make the choices of the trace (random bytes, keys, extensions and their order, signatures); everything that
follows from these must come out as published. The RSA key of the traces has 1024 bits, so no chain is verified.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, x25519

from streams.security.tls13 import extensions as ext
from streams.security.tls13 import server as server_module
from streams.security.tls13.certificates import Peer, Trust
from streams.security.tls13.client import Client
from streams.security.tls13.endpoint import Tls13Endpoint as Endpoint
from streams.security.tls13.groups import GROUP_CODES, P256Pair, X25519Group, X25519Pair
from streams.security.tls13.messages import (
    ClientHello,
    ServerHello,
    parse_certificate,
    parse_client_hello,
    parse_encrypted_extensions,
)
from streams.security.tls13.names import Extension
from streams.security.tls13.records import RecordReader, RecordWriter
from streams.security.tls13.server import Choice, Server
from streams.security.tls13.settings import Chance, Settings
from streams.security.tls13.signature import Credential, Signature

Trace = dict[str, bytes]
RECORD_HEADER, MESSAGE_HEADER = 5, 4
X25519, P256 = GROUP_CODES["X25519"], GROUP_CODES["secp256r1"]


def _load() -> dict[str, Trace]:
    text = (Path(__file__).parents[3] / "data" / "rfc8448.toml").read_text()
    return {
        name: {key: bytes.fromhex(value) for key, value in each.items()} for name, each in tomllib.loads(text).items()
    }


TRACES = _load()


class Unverified(Trust):
    """Takes every chain as verified."""

    def verify(self, chain: Sequence[bytes], host: str | None) -> Peer:
        leaf = x509.load_der_x509_certificate(chain[0])
        return Peer(leaf, leaf.public_key(), (), leaf.not_valid_after_utc)


class Recorded:
    """A signer that gives the trace's signature: RSA-PSS and ECDSA use random bytes."""

    def __init__(self, scheme: int, signature: bytes) -> None:
        self.schemes = (scheme,)
        self._signature = signature

    def sign(self, scheme: int, content: bytes) -> bytes:
        assert scheme in self.schemes
        return self._signature


def hello_of(record: bytes) -> ClientHello:
    return parse_client_hello(record[RECORD_HEADER + MESSAGE_HEADER :])


def pair_of(trace: Trace, side: str, group: int) -> X25519Pair | P256Pair:
    if group == X25519:
        return X25519Pair(x25519.X25519PrivateKey.from_private_bytes(trace[f"{side}_x25519"]))
    return P256Pair(ec.derive_private_key(int.from_bytes(trace[f"{side}_secp256r1"]), ec.SECP256R1()))


def settings(trace: Trace, credential: Credential | None, **changes: Any) -> Settings:
    hello = hello_of(trace["client_hello"])
    made = Settings(
        groups=(X25519, P256),
        suites=hello.suites,
        authentication=Signature(
            ext.parse_numbers(hello.extensions[Extension.SIGNATURE_ALGORITHMS], "trace"), credential
        ),
        trust=Unverified([]),
    )
    return msgspec.structs.replace(made, **changes)


# -- the client --------------------------------------------------------------------------------------------------


class TracedClient(Client):
    """Sends the hellos of a trace, which offer more than this stack has, with its keys."""

    trace: Trace

    def first_hello(self) -> ClientHello:
        super().first_hello()
        return hello_of(self.trace["client_hello"])

    def second_hello(self, retry: ServerHello) -> ClientHello:
        ours, traced = super().second_hello(retry), hello_of(self.trace["second_client_hello"])
        for kind in (Extension.KEY_SHARE, Extension.COOKIE):
            assert ours.extensions[kind] == traced.extensions[kind]
        return traced  # with padding besides


def traced_client(trace: Trace) -> Endpoint:
    credential = None
    if "client_certificate" in trace:
        credential = Credential((trace["client_certificate"],), Recorded(0x0804, trace["client_signature"]))
    reader, writer = RecordReader(), RecordWriter()
    chance = Chance(pair=lambda group: pair_of(trace, "client", group))
    made = settings(trace, credential)
    client = TracedClient(made, reader, writer, host="server", sni=b"server", chance=chance)
    client.trace = trace
    return Endpoint(client, reader, writer)


def sent(endpoint: Endpoint) -> bytes:
    return b"".join(endpoint.take())


@pytest.mark.parametrize("name", TRACES)
def test_our_client_sends_what_the_trace_says(name: str) -> None:
    trace = TRACES[name]
    client = traced_client(trace)
    assert not client.handshake()
    assert sent(client) == trace["client_hello"]
    if "retry" in trace:
        client.feed(trace["retry"])
        assert not client.handshake()
        assert sent(client) == trace["second_client_hello"]
    client.feed(trace["server_hello"] + trace["server_flight"])
    assert client.handshake()
    assert sent(client) == trace["client_flight"]
    if "data" in trace:
        client.feed(trace["ticket"] + trace["server_data"])
        assert client.read() == trace["data"]
        client.write(trace["data"])
        assert sent(client) == trace["client_data"]
    client.close()
    assert sent(client) == trace["client_close"]
    client.feed(trace["server_close"])
    assert client.read() is None


# -- the server --------------------------------------------------------------------------------------------------


class TracedServer(Server):
    """The order of the extensions is the trace's."""

    def _hello_extensions(self, choice: Choice, share: bytes) -> dict[int, bytes]:
        return dict(reversed(super()._hello_extensions(choice, share).items()))


@pytest.mark.parametrize("name", [name for name, trace in TRACES.items() if "retry" not in trace])
def test_our_server_sends_what_the_trace_says(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = TRACES[name]
    extensions = parse_encrypted_extensions(trace["encrypted_extensions"][MESSAGE_HEADER:])
    monkeypatch.setattr(server_module, "_encrypted_extensions", lambda _: extensions)
    monkeypatch.setattr(X25519Group, "generate", lambda _: pair_of(trace, "server", X25519))
    chain = tuple(entry.der for entry in parse_certificate(trace["server_certificate"][MESSAGE_HEADER:]).entries)
    scheme = 0x0403 if "client_certificate" in trace else 0x0804
    made = settings(trace, Credential(chain, Recorded(scheme, trace["server_signature"])))
    made = msgspec.structs.replace(made, ask_client="client_certificate" in trace)
    reader, writer = RecordReader(), RecordWriter()
    server = TracedServer(made, reader, writer, chance=Chance(bytes=lambda _: trace["server_random"]))
    endpoint = Endpoint(server, reader, writer)
    endpoint.feed(trace["client_hello"])
    assert not endpoint.handshake()
    assert sent(endpoint) == trace["server_hello"] + trace["server_flight"]
    endpoint.feed(trace["client_flight"])
    assert endpoint.handshake()
    if "data" in trace:
        endpoint.feed(trace["client_data"])
        assert endpoint.read() == trace["data"]
    endpoint.feed(trace["client_close"])
    assert endpoint.read() is None
