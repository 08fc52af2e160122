"""KEMTLS with a key of the server that was distributed beforehand (PDK). Experimental, unaudited.

The client encapsulates to the server's key in its first message, so no certificate of the server travels, and both
sides are through in one round trip:

    C → S  ClientHello (stored_auth_key: fingerprint, ciphertext; early_auth)
    c e hs [Certificate]                                   S → C  ServerHello (both extensions, empty)
                                                           s hs   EncryptedExtensions, [KEMEncapsulation], Finished
    c hs   Finished

    ES = Extract(0, ss_S)      c e hs over ClientHello      HS = Extract(D(ES, "derived"), ss_e)
    MS = Extract(D(HS, "derived"), ss_C or zeros)           both Finished are keyed by MS

Nothing falls back to the full handshake, and there is no HelloRetryRequest. The early certificate has no forward
secrecy: an attacker who obtains the server's key later can read which clients connected. A replayed flight costs the
server a decapsulation, a chain check and an encapsulation, and never completes.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from streams.errors import HandshakeFailed
from streams.security.tls13 import extensions as ext
from streams.security.tls13.alerts import Abort, Alert, illegal, unexpected
from streams.security.tls13.authentication import certificate_required
from streams.security.tls13.client import Client
from streams.security.tls13.codec import Reader, vector
from streams.security.tls13.handshake import Handshake
from streams.security.tls13.kem import KemKey, encapsulate, encode_encapsulation, kem_of, parse_encapsulation
from streams.security.tls13.kemtls import KemAuthentication, check_offer, proven, read_kem_chain, send_chain
from streams.security.tls13.messages import ClientHello, ServerHello, parse_client_hello
from streams.security.tls13.names import Extension, HandshakeType
from streams.security.tls13.server import Choice, Server, choose
from streams.security.tls13.settings import Settings
from streams.security.tls13.suites import SUITES

FINGERPRINT_BYTES = 32


class StoredKey(msgspec.Struct, frozen=True):
    """A server's key as distributed to a client: DER SubjectPublicKeyInfo, the server's names, and an end."""

    spki: bytes
    names: tuple[str, ...]
    until: datetime.datetime

    def load(self) -> Any:
        """The key; ValueError if it is not one of a KEM of ours."""
        return _load(self.spki)


@lru_cache(64)
def _load(spki: bytes) -> Any:
    """Read once: this takes as long as to encapsulate."""
    try:
        key = serialization.load_der_public_key(spki)
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from error
    if kem_of(key) is None:
        raise ValueError(f"a {type(key).__name__} is not a KEM's key")
    return key


class ServerKey(msgspec.Struct, frozen=True):
    """A key that clients may have stored; those of the last rotations stay until their own end."""

    key: KemKey
    until: datetime.datetime


def fingerprint(spki: bytes) -> bytes:
    return hashlib.sha256(spki).digest()


class PdkAuthentication(msgspec.Struct, frozen=True):
    """This way to authenticate: how the client does (as in kemtls.py), and the server's key on either side."""

    kem: KemAuthentication
    stored: StoredKey | None = None
    keys: Mapping[bytes, ServerKey] = {}
    """By fingerprint."""

    def offered(self) -> dict[int, bytes]:
        return self.kem.offered()

    def client(self, shake: Handshake, settings: Settings, host: str) -> PdkClientHalf:
        return PdkClientHalf(self, shake)

    def server(self, shake: Handshake, settings: Settings) -> PdkServerHalf:
        return PdkServerHalf(self, shake, settings)


def parse_stored(body: bytes) -> tuple[bytes, bytes]:
    """stored_auth_key in a ClientHello: fingerprint and ciphertext."""
    reader = Reader(body, "stored_auth_key")
    found = reader.take(FINGERPRINT_BYTES), reader.vector(2)
    reader.end()
    return found


# -- the client --------------------------------------------------------------------------------------------------


class PdkClientHalf:
    """[KEMEncapsulation →] Finished, then our own."""

    def __init__(self, way: PdkAuthentication, shake: Handshake) -> None:
        self._way, self._shake = way, shake

    def begin(self) -> None:
        if self._way.kem.credential is None:
            self._shake.schedule.advance()
            self._shake.expect({HandshakeType.FINISHED: self._finished})
        else:
            self._shake.expect({HandshakeType.KEM_ENCAPSULATION: self._encapsulation})

    def _encapsulation(self, body: bytes, raw: bytes) -> None:
        credential = self._way.kem.credential
        assert credential is not None, "expected only with one"
        self._shake.schedule.advance(credential.key.decapsulate(parse_encapsulation(body)))
        self._shake.transcript.add(raw)
        self._shake.expect({HandshakeType.FINISHED: self._finished})

    def _finished(self, body: bytes, raw: bytes) -> None:
        shake, schedule, stored = self._shake, self._shake.schedule, self._way.stored
        assert stored is not None, "a client has one"
        shake.check_finished(schedule.keyed_by_stage("s finished"), body, raw)
        kem = kem_of(stored.load())
        shake.agreed.names, shake.agreed.until = stored.names, stored.until
        shake.agreed.proof = kem.name if kem is not None else None
        shake.read_with(shake.server_traffic())
        shake.send_finished(schedule.keyed_by_stage("c finished"))
        shake.write_with(shake.client_traffic())
        shake.finish(tickets=False)


class PdkClient(Client):
    """A client that encapsulates to the stored key at once, and shows its certificate before the server speaks."""

    def __init__(self, settings: Settings, *arguments: Any, host: str, **keywords: Any) -> None:
        super().__init__(settings, *arguments, host=host, **keywords)
        way = settings.authentication
        assert isinstance(way, PdkAuthentication), "party.py makes this one for no other"
        assert way.stored is not None, "a client has one"
        if len(settings.suites) != 1:
            raise ValueError("a client with a stored key offers one cipher suite: its hash is needed at once")
        self._way, self._stored, self._host = way, way.stored, host
        self._ciphertext = b""
        self.in_server_hello = self.in_server_hello | {Extension.STORED_AUTH_KEY, Extension.EARLY_AUTH}

    def start(self) -> None:
        """ClientHello, then our certificate under a key that only the true server can derive."""
        self._check_stored()
        shake, suite = self.shake, SUITES[self._settings.suites[0]]
        self._ciphertext, secret = encapsulate(self._stored.load())
        super().start()
        shake.begin(suite, secret)
        shake.transcript.add(self._first)
        if self._way.kem.credential is not None:
            early = shake.derive("c e hs traffic", shake.transcript.hash(), "CLIENT_EARLY_HANDSHAKE_TRAFFIC_SECRET")
            shake.writer.change_cipher_spec_before_sealed()
            shake.write_with(early)
            send_chain(shake, self._way.kem.credential)
            shake.flush()

    def _check_stored(self) -> None:
        if self._settings.trust.clock() > self._stored.until:
            raise HandshakeFailed("certificate_expired", "the server's stored key has expired: distribute a new one")
        if self._host not in self._stored.names:
            text = f"the server's stored key is for {', '.join(self._stored.names)}, not for {self._host!r}"
            raise HandshakeFailed("host_mismatch", text)

    def first_hello(self) -> ClientHello:
        hello = super().first_hello()
        offered = dict(hello.extensions)
        offered[Extension.STORED_AUTH_KEY] = fingerprint(self._stored.spki) + vector(2, self._ciphertext)
        if self._way.kem.credential is not None:
            offered[Extension.EARLY_AUTH] = b""
        return msgspec.structs.replace(hello, extensions=offered)

    def _begin_transcript(self, suite: Any) -> None:
        """It began with the hello."""

    def _retry(self, retry: ServerHello, raw: bytes) -> None:
        raise unexpected("a hello_retry_request, which this mode does not have")

    def _check(self, hello: ServerHello) -> None:
        super()._check(hello)
        if hello.retry:
            return
        for kind in (Extension.STORED_AUTH_KEY, Extension.EARLY_AUTH):
            if kind in self._hello.extensions:
                ext.check_empty(ext.required(hello.extensions, kind), kind.name.lower())


# -- the server --------------------------------------------------------------------------------------------------


class PdkServerHalf:
    """[KEMEncapsulation,] Finished; → Finished."""

    def __init__(self, way: PdkAuthentication, shake: Handshake, settings: Settings) -> None:
        self._shake, self._settings = shake, settings

    def judge(self, offered: Mapping[int, bytes]) -> None:
        check_offer(offered, None, self._settings.trust.clock)

    def begin(self) -> None:
        shake, schedule, peer = self._shake, self._shake.schedule, self._shake.agreed.peer
        secret = None
        if peer is not None:
            ciphertext, secret = encapsulate(peer.key)
            shake.send(encode_encapsulation(ciphertext))
        schedule.advance(secret)
        shake.send_finished(schedule.keyed_by_stage("s finished"))
        shake.write_with(shake.server_traffic())
        shake.expect({HandshakeType.FINISHED: self._finished})

    def _finished(self, body: bytes, raw: bytes) -> None:
        shake = self._shake
        shake.check_finished(shake.schedule.keyed_by_stage("c finished"), body, raw)
        proven(shake)
        shake.read_with(shake.client_traffic())
        shake.finish(tickets=False)


class PdkServer(Server):
    """A server that finds its key by fingerprint, and reads the client's certificate before it speaks."""

    def __init__(self, settings: Settings, *arguments: Any, **keywords: Any) -> None:
        super().__init__(settings, *arguments, **keywords)
        way = settings.authentication
        assert isinstance(way, PdkAuthentication), "party.py makes this one for no other"
        self._way = way
        self._waiting: tuple[ClientHello, Choice, bytes]

    def _client_hello(self, body: bytes, raw: bytes) -> None:
        shake, hello = self.shake, parse_client_hello(body)
        shake.reader.accept_change_cipher_spec = True
        shake.client_random = hello.random
        choice = choose(hello, self._settings)
        self._half.judge(hello.extensions)
        if len(hello.suites) != 1:
            raise illegal("a client with a stored key offers one cipher suite")
        if choice.share is None:
            text = "no key share for a group in common with the client"
            raise Abort(Alert.HANDSHAKE_FAILURE, text, "no_shared_group")
        shake.begin(choice.suite, self._stored_secret(hello))
        self._take(hello, raw, choice)
        if Extension.EARLY_AUTH in hello.extensions:
            ext.check_empty(hello.extensions[Extension.EARLY_AUTH], "early_auth")
            early = shake.derive("c e hs traffic", shake.transcript.hash(), "CLIENT_EARLY_HANDSHAKE_TRAFFIC_SECRET")
            shake.read_with(early)
            self._waiting = hello, choice, choice.share
            shake.expect({HandshakeType.CERTIFICATE: self._certificate})
        elif self._settings.ask_client:
            raise certificate_required()
        else:
            self._answer(hello, choice, choice.share)

    def _stored_secret(self, hello: ClientHello) -> bytes:
        """The secret that the client encapsulated to the key it has stored; for a forged ciphertext, another one."""
        print_, ciphertext = parse_stored(ext.required(hello.extensions, Extension.STORED_AUTH_KEY))
        found = self._way.keys.get(print_)
        if found is None or self._settings.trust.clock() > found.until:
            text = "the client has stored a key that is not, or no longer, ours"
            raise Abort(Alert.UNKNOWN_PSK_IDENTITY, text, "unknown_stored_key")
        return found.key.decapsulate(ciphertext)

    def _certificate(self, body: bytes, raw: bytes) -> None:
        shake = self.shake
        peer = read_kem_chain(body, self._way.kem, self._settings.trust, None)
        if peer is None:
            raise certificate_required()
        shake.agreed.peer = peer
        shake.transcript.add(raw)
        self._answer(*self._waiting)

    def _hello_extensions(self, choice: Choice, share: bytes) -> dict[int, bytes]:
        answered = super()._hello_extensions(choice, share)
        answered[Extension.STORED_AUTH_KEY] = b""
        if self.shake.agreed.peer is not None:
            answered[Extension.EARLY_AUTH] = b""
        return answered
