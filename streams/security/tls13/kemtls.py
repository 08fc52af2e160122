"""Authentication by KEM instead of signature (KEMTLS, Schwabe, Stebila and Wiggers, CCS 2020). Experimental, unaudited.

A side proves that it holds its certificate's key by decapsulating to it. `ES`, `HS`, `MS` are RFC 8446's early,
handshake and main secrets; `AHS` stands between the last two, and mixes in what only the true server can decapsulate:

    C → S  ClientHello                                     S → C  ServerHello
                                                           s hs   EncryptedExtensions, [CertificateRequest], Certificate
    c hs   KEMEncapsulation (to the server's key)
    c ahs  [Certificate]                                   s ahs  [KEMEncapsulation (to the client's key)]
    c ahs  Finished                                        s ahs  Finished

    AHS = Extract(D(HS, "derived"), ss_S)      c/s ahs over ClientHello .. the client's KEMEncapsulation
    MS  = Extract(D(AHS, "derived"), ss_C or zeros)        both Finished are keyed by MS

The server writes under s ahs from the first record on that c ahs authenticates. Nobody sends a CertificateVerify:
there is no way from here to signatures, and no mixed authentication. The proof on paper covers the form without
client certificates; the form with them has been checked by Tamarin models alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from streams.security.tls13 import extensions as ext
from streams.security.tls13.alerts import Abort, Alert, decode_error, illegal
from streams.security.tls13.authentication import (
    accepted_delegated,
    accepted_schemes,
    certificate_message,
    certificate_required,
    read_chain,
    read_request,
    unsupported_key,
)
from streams.security.tls13.certificates import Clock, Peer, Trust
from streams.security.tls13.delegated import Delegated
from streams.security.tls13.handshake import Handshake
from streams.security.tls13.kem import KEMS, KemKey, encapsulate, encode_encapsulation, kem_of, parse_encapsulation
from streams.security.tls13.messages import CertificateRequest
from streams.security.tls13.names import Extension, HandshakeType
from streams.security.tls13.schemes import CHAIN_SCHEMES
from streams.security.tls13.settings import Settings


class KemCredential(msgspec.Struct, frozen=True):
    """A side's certificates in DER, the leaf first and the root not among them, and its KEM key.

    The key is the leaf's, or that of a credential that the leaf (which then signs) has delegated to.
    """

    chain: tuple[bytes, ...]
    key: KemKey
    delegated: Delegated | None = None


class KemAuthentication(msgspec.Struct, frozen=True):
    """This way to authenticate: the KEMs accepted from the peer, the schemes accepted in its chain, our credential."""

    kems: tuple[int, ...]
    chain_schemes: tuple[int, ...]
    credential: KemCredential | None = None
    delegated_kems: tuple[int, ...] = ()
    """Accepted from the peer in a delegated credential; none are asked for if there are none."""
    delegation_schemes: tuple[int, ...] = ()
    """The schemes that a leaf may sign such a credential with."""

    def offered(self) -> dict[int, bytes]:
        algorithms = self.kems + (self.delegation_schemes if self.delegated_kems else ())
        offered: dict[int, bytes] = {
            Extension.SIGNATURE_ALGORITHMS: ext.encode_numbers(algorithms),
            Extension.SIGNATURE_ALGORITHMS_CERT: ext.encode_numbers(self.chain_schemes),
        }
        if self.delegated_kems:
            offered[Extension.DELEGATED_CREDENTIAL] = ext.encode_numbers(self.delegated_kems)
        return offered

    def client(self, shake: Handshake, settings: Settings, host: str) -> KemClient:
        return KemClient(self, shake, settings, host)

    def server(self, shake: Handshake, settings: Settings) -> KemServer:
        return KemServer(self, shake, settings)


# -- what both sides do ------------------------------------------------------------------------------------------


def check_offer(offered: Mapping[int, bytes], credential: KemCredential | None, clock: Clock) -> None:
    """The peer must accept the KEM of our key; it says apart which schemes its chain may be signed with.

    A peer of another mode is told that first: it does not know of the second.
    """
    accepted, delegated = accepted_schemes(offered), accepted_delegated(offered)
    if credential is not None and not _fits(credential, accepted, delegated, clock):
        text = "the peer accepts no KEM that fits our certificate"
        raise Abort(Alert.HANDSHAKE_FAILURE, text, "no_shared_signature_algorithm")
    chain = ext.required(offered, Extension.SIGNATURE_ALGORITHMS_CERT)
    if KEMS.keys() & set(ext.parse_numbers(chain, "signature_algorithms_cert")):
        raise illegal("a KEM among the schemes for certificates")


def _fits(credential: KemCredential, accepted: Sequence[int], delegated: Sequence[int], clock: Clock) -> bool:
    if credential.delegated is not None:
        return credential.delegated.fits(delegated, accepted, clock())
    return credential.key.kem.code in accepted


def read_kem_chain(body: bytes, way: KemAuthentication, trust: Trust, host: str | None) -> Peer | None:
    """The peer's chain, verified, with a leaf for one of our KEMs and signed throughout as we accept it."""
    delegated = way.delegated_kems
    peer = read_chain(body, trust, host, delegated_schemes=delegated, algorithms=way.delegation_schemes)
    if peer is None:
        return None
    kem = kem_of(peer.key)
    if kem is None or (peer.delegated_scheme is None and kem.code not in way.kems):
        raise unsupported_key(peer)
    accepted = [CHAIN_SCHEMES[code] for code in way.chain_schemes]
    if others := sorted(set(peer.chain_schemes).difference(accepted)):
        text = f"peer's certificate: its chain is signed with {' and '.join(others)}, not with {' or '.join(accepted)}"
        raise Abort(Alert.BAD_CERTIFICATE, text, "certificate_invalid")
    return peer


def send_chain(shake: Handshake, credential: KemCredential | None) -> None:
    """Our certificates; an empty list if we have none."""
    chain, delegated = (credential.chain, credential.delegated) if credential is not None else ((), None)
    shake.send(certificate_message(chain, None if delegated is None else delegated.raw))


def _authenticated_secrets(shake: Handshake, secret: bytes) -> tuple[bytes, bytes]:
    """AHS: the client's and the server's traffic secrets for the rest of the handshake."""
    shake.schedule.advance(secret)
    digest = shake.transcript.hash()
    return (
        shake.derive("c ahs traffic", digest, "CLIENT_AUTHENTICATED_HANDSHAKE_TRAFFIC_SECRET"),
        shake.derive("s ahs traffic", digest, "SERVER_AUTHENTICATED_HANDSHAKE_TRAFFIC_SECRET"),
    )


def proven(shake: Handshake) -> None:
    """The peer's Finished is right: it holds the key of its certificate, if it showed one."""
    peer = shake.agreed.peer
    if peer is not None:
        kem = kem_of(peer.key)
        assert kem is not None, "read_kem_chain lets no other in"
        shake.agreed.proof = kem.name


# -- the client's half -------------------------------------------------------------------------------------------


class KemClient:
    """[CertificateRequest] → Certificate; we encapsulate, show ours, finish first; → [KEMEncapsulation] → Finished."""

    def __init__(self, way: KemAuthentication, shake: Handshake, settings: Settings, host: str) -> None:
        self._way, self._shake, self._settings, self._host = way, shake, settings, host
        self._wanted = False

    def begin(self) -> None:
        self._shake.expect(
            {
                HandshakeType.CERTIFICATE_REQUEST: self._certificate_request,
                HandshakeType.CERTIFICATE: self._certificate,
            }
        )

    def _certificate_request(self, body: bytes, raw: bytes) -> None:
        check_offer(read_request(body), self._way.credential, self._settings.trust.clock)
        self._wanted = True
        self._shake.transcript.add(raw)
        self._shake.expect({HandshakeType.CERTIFICATE: self._certificate})

    def _certificate(self, body: bytes, raw: bytes) -> None:
        shake = self._shake
        peer = read_kem_chain(body, self._way, self._settings.trust, self._host)
        if peer is None:
            raise decode_error("the server's certificate message is empty")
        shake.agreed.peer = peer
        shake.transcript.add(raw)
        ciphertext, secret = encapsulate(peer.key)
        shake.send(encode_encapsulation(ciphertext))
        client, server = _authenticated_secrets(shake, secret)
        shake.write_with(client)
        shake.read_with(server, keep_previous=True)
        if not self._wanted:
            self._finish(None)
            return
        send_chain(shake, self._way.credential)
        shake.expect({HandshakeType.KEM_ENCAPSULATION: self._encapsulation} if self._way.credential else {})

    def _encapsulation(self, body: bytes, raw: bytes) -> None:
        credential = self._way.credential
        assert credential is not None, "expected only with one"
        secret = credential.key.decapsulate(parse_encapsulation(body))
        self._shake.transcript.add(raw)
        self._finish(secret)

    def _finish(self, secret: bytes | None) -> None:
        """Our Finished comes first; data waits for the server's."""
        shake, schedule = self._shake, self._shake.schedule
        schedule.advance(secret)
        shake.send_finished(schedule.keyed_by_stage("c finished"))
        shake.write_with(shake.client_traffic())
        shake.expect({HandshakeType.FINISHED: self._finished})

    def _finished(self, body: bytes, raw: bytes) -> None:
        shake = self._shake
        shake.check_finished(shake.schedule.keyed_by_stage("s finished"), body, raw)
        proven(shake)
        shake.read_with(shake.server_traffic())
        shake.finish(tickets=False)


# -- the server's half -------------------------------------------------------------------------------------------


class KemServer:
    """Our [CertificateRequest and] Certificate; → KEMEncapsulation → [Certificate, answered] → Finished, answered."""

    def __init__(self, way: KemAuthentication, shake: Handshake, settings: Settings) -> None:
        self._way, self._shake, self._settings = way, shake, settings

    def judge(self, offered: Mapping[int, bytes]) -> None:
        check_offer(offered, self._way.credential, self._settings.trust.clock)

    def begin(self) -> None:
        if self._settings.ask_client:
            self._shake.send(CertificateRequest(b"", self._way.offered()).encode())
        send_chain(self._shake, self._way.credential)
        self._shake.expect({HandshakeType.KEM_ENCAPSULATION: self._encapsulation})

    def _encapsulation(self, body: bytes, raw: bytes) -> None:
        shake, credential = self._shake, self._way.credential
        assert credential is not None, "a server has one"
        secret = credential.key.decapsulate(parse_encapsulation(body))
        shake.transcript.add(raw)
        client, server = _authenticated_secrets(shake, secret)
        shake.read_with(client, keep_previous=True)
        shake.write_with_once_heard(server)
        if self._settings.ask_client:
            shake.expect({HandshakeType.CERTIFICATE: self._certificate})
        else:
            shake.schedule.advance()
            shake.expect({HandshakeType.FINISHED: self._finished})

    def _certificate(self, body: bytes, raw: bytes) -> None:
        shake = self._shake
        peer = read_kem_chain(body, self._way, self._settings.trust, None)
        if peer is None:
            raise certificate_required()
        shake.agreed.peer = peer
        shake.transcript.add(raw)
        ciphertext, secret = encapsulate(peer.key)
        shake.send(encode_encapsulation(ciphertext))
        shake.schedule.advance(secret)
        shake.expect({HandshakeType.FINISHED: self._finished})

    def _finished(self, body: bytes, raw: bytes) -> None:
        shake, schedule = self._shake, self._shake.schedule
        shake.check_finished(schedule.keyed_by_stage("c finished"), body, raw)
        proven(shake)
        shake.read_with(shake.client_traffic())
        shake.send_finished(schedule.keyed_by_stage("s finished"))
        shake.write_with(shake.server_traffic())
        shake.finish(tickets=False)
