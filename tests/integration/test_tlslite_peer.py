"""Delegated credentials with tlslite-ng, which no one here wrote, as client and as server.

It knows those of a server, and of these it checks the scheme and the signature; so it proves the encoding.
"""

from __future__ import annotations

import socket
import threading
import warnings
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization

from streams.security.tls13.certificates import Trust
from streams.security.tls13.endpoint import Tls13Endpoint as Endpoint
from streams.security.tls13.schemes import SCHEME_CODES, KeySigner
from streams.security.tls13.settings import Settings
from streams.security.tls13.signature import Credential, Signature
from tests.integration.test_foreign_tls13_peers import flush, serve, until
from tests.streams.security.tls13.support import ALPN, HOST, MAKE_KEY, SCHEME_OF, Authority, client_of, server_of
from tests.streams.security.tls13.test_delegated import EVERY, Leaf, settings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # it imports asyncore
    from tlslite.api import HandshakeSettings, TLSConnection, X509CertChain, parsePEMKey
    from tlslite.constants import SignatureScheme
    from tlslite.utils.codec import Parser
    from tlslite.x509 import X509, DelegatedCredential

AUTHORITY = Authority("p256")
LEAF = Leaf(HOST, authority=AUTHORITY)
DELEGATED = ["p256", "ed25519"]
"""The kinds of key that both stacks can delegate to."""


def delegated(kind: str) -> tuple[Any, Credential]:
    """A delegated key, and the credential of a server that has it."""
    key = MAKE_KEY[kind]()
    made = LEAF.delegate(SCHEME_CODES[SCHEME_OF[kind]], key.public_key())
    return key, Credential((LEAF.der,), LEAF.signer, made, KeySigner(key))


def sides(way: Signature) -> Settings:
    """One side that trusts the authority here and asks for no client certificate."""
    made = settings(way, ask_client=False)
    return msgspec.structs.replace(made, trust=Trust([AUTHORITY.certificate]), groups=(0x1D, 0x17))


def their_settings() -> HandshakeSettings:
    made = HandshakeSettings()
    made.minVersion = made.maxVersion = (3, 4)
    made.dc_sig_algs = [SignatureScheme.ecdsa_secp256r1_sha256, SignatureScheme.ed25519]
    return made


@pytest.mark.parametrize("kind", DELEGATED)
def test_its_client_accepts_our_credential(kind: str) -> None:
    _, credential = delegated(kind)
    endpoint, seen = server_of(sides(Signature(EVERY, credential))), list[bytes]()
    with socket.create_server(("localhost", 0)) as listener:
        listener.settimeout(30)
        thread = threading.Thread(target=serve, args=(endpoint, listener, seen))
        thread.start()
        with socket.create_connection(listener.getsockname()[:2], 30) as link:
            connection = TLSConnection(link)
            connection.handshakeClientCert(settings=their_settings(), alpn=[bytearray(ALPN)], serverName=HOST)
            shown = connection.session.delegated_credential
            connection.write(b"hello")
            answer = connection.read(None, 5)
        thread.join(30)
    assert (seen, bytes(answer)) == ([b"hello"], b"hello")
    assert credential.delegated is not None
    assert bytes(shown.write()) == credential.delegated.raw


def their_server(listener: socket.socket, key: Any, credential: Credential, failures: list[Exception]) -> None:
    """Echo with a credential that we have made."""
    assert credential.delegated is not None
    raw = credential.delegated.raw
    encoded = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    leaf = X509()
    leaf.parseBinary(bytearray(LEAF.der))
    link, _ = listener.accept()
    with link:
        link.settimeout(30)
        connection = TLSConnection(link)
        try:
            connection.handshakeServer(
                certChain=X509CertChain([leaf]),
                settings=their_settings(),
                alpn=[bytearray(ALPN)],
                dc_key=parsePEMKey(encoded.decode(), private=True),
                del_cred=DelegatedCredential().parse(Parser(bytearray(raw))),
            )
            connection.write(connection.read(None, 5))
            connection.close()
        except Exception as error:  # noqa: BLE001 — handed to the test
            failures.append(error)


@pytest.mark.parametrize("kind", DELEGATED)
def test_our_client_accepts_a_credential_that_its_server_shows(kind: str) -> None:
    key, credential = delegated(kind)
    client: Endpoint = client_of(sides(Signature(EVERY, None, EVERY)))
    failures: list[Exception] = []
    with socket.create_server(("localhost", 0)) as listener:
        listener.settimeout(30)
        thread = threading.Thread(target=their_server, args=(listener, key, credential, failures))
        thread.start()
        with socket.create_connection(listener.getsockname()[:2], 30) as link:
            link.settimeout(30)
            client.handshake()
            flush(client, link)
            until(client, link, 0)
            client.write(b"hello")
            flush(client, link)
            assert until(client, link, 5) == b"hello"
        thread.join(30)
    assert not failures
    peer = client._shake.agreed.peer
    assert peer is not None
    assert (client._shake.agreed.proof, peer.delegated_by) == (SCHEME_OF[kind], "ecdsa_secp256r1_sha256")
