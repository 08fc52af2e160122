"""Authentication by signature (RFC 8446 section 4.4): Certificate, CertificateVerify, Finished.

The server's flight is CertificateRequest (if it asks), Certificate, CertificateVerify, Finished; the client answers
with its own Certificate and CertificateVerify (if asked) and Finished.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping

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
from streams.security.tls13.certificates import Peer, Trust
from streams.security.tls13.delegated import CLIENT, SERVER, Delegated
from streams.security.tls13.handshake import Handshake
from streams.security.tls13.messages import CertificateRequest, CertificateVerify, parse_certificate_verify
from streams.security.tls13.names import Extension, HandshakeType
from streams.security.tls13.schemes import SCHEMES, Signer, schemes_of, verify
from streams.security.tls13.settings import Settings, pick


class Credential(msgspec.Struct, frozen=True):
    """A side's certificates in DER, the leaf first and the root not among them, and the signer that has the leaf's key.

    A side that has a delegated credential uses it with peers that accept one. The leaf's key may then be elsewhere.
    """

    chain: tuple[bytes, ...]
    signer: Signer | None
    delegated: Delegated | None = None
    delegated_signer: Signer | None = None


class Signature(msgspec.Struct, frozen=True):
    """This way to authenticate: the schemes accepted from the peer, best first, and our own credential."""

    schemes: tuple[int, ...]
    credential: Credential | None = None
    delegated_schemes: tuple[int, ...] = ()
    """Accepted from the peer in a delegated credential; none are asked for if there are none."""
    alternatives: tuple[Credential, ...] = ()
    """Further credentials of a server, for clients that do not accept the first."""

    def offered(self) -> dict[int, bytes]:
        offered: dict[int, bytes] = {Extension.SIGNATURE_ALGORITHMS: ext.encode_numbers(self.schemes)}
        if self.delegated_schemes:
            offered[Extension.DELEGATED_CREDENTIAL] = ext.encode_numbers(self.delegated_schemes)
        return offered

    def client(self, shake: Handshake, settings: Settings, host: str) -> SigningClient:
        return SigningClient(self, shake, settings, host)

    def server(self, shake: Handshake, settings: Settings) -> SigningServer:
        return SigningServer(self, shake, settings)


# -- what both sides do ------------------------------------------------------------------------------------------


def signed_content(side: str, transcript_hash: bytes) -> bytes:
    """The content that a CertificateVerify signs (section 4.4.3); the prefix keeps it apart from other protocols."""
    return b" " * 64 + f"TLS 1.3, {side} CertificateVerify".encode() + b"\0" + transcript_hash


class Proof(msgspec.Struct, frozen=True):
    """The scheme and key of the proof, and the delegated credential that travels with the leaf."""

    scheme: int
    signer: Signer
    delegated: bytes | None = None


def choose_proof(credential: Credential, offered: Mapping[int, bytes], now: datetime.datetime) -> Proof:
    """Our delegated credential if the peer accepts it, else the leaf's own key with a scheme that the peer accepts."""
    proof = find_proof(credential, offered, now)
    if proof is None:
        text = "the peer accepts no signature scheme that fits our certificate"
        if credential.signer is None:
            text = "the peer does not accept our delegated credential, or it has expired"
        raise Abort(Alert.HANDSHAKE_FAILURE, text, "no_shared_signature_algorithm")
    return proof


def find_proof(credential: Credential, offered: Mapping[int, bytes], now: datetime.datetime) -> Proof | None:
    accepted, delegated = accepted_schemes(offered), credential.delegated
    if delegated is not None and delegated.fits(accepted_delegated(offered), accepted, now):
        assert credential.delegated_signer is not None, "it comes with its key"
        return Proof(delegated.scheme, credential.delegated_signer, delegated.raw)
    signer = credential.signer
    scheme = None if signer is None else pick(signer.schemes, accepted)
    return None if signer is None or scheme is None else Proof(scheme, signer)


def send_certificate(shake: Handshake, credential: Credential, proof: Proof, side: str) -> None:
    """Our certificates, and the proof that we hold the leaf's or the delegated key."""
    shake.send(certificate_message(credential.chain, proof.delegated))
    content = signed_content(side, shake.transcript.hash())
    shake.send(CertificateVerify(proof.scheme, proof.signer.sign(proof.scheme, content)).encode())


def _read_certificate(body: bytes, way: Signature, trust: Trust, host: str | None) -> Peer | None:
    peer = read_chain(body, trust, host, delegated_schemes=way.delegated_schemes, algorithms=way.schemes)
    if peer is not None and peer.delegated_scheme is None and pick(way.schemes, schemes_of(peer.key)) is None:
        raise unsupported_key(peer)
    return peer


def _check_verify(body: bytes, shake: Handshake, way: Signature, side: str) -> None:
    """The peer's signature over everything so far."""
    proof, peer = parse_certificate_verify(body), shake.agreed.peer
    assert peer is not None, "expected only after a certificate"
    allowed = way.schemes if peer.delegated_scheme is None else (peer.delegated_scheme,)
    if proof.scheme not in allowed:
        raise illegal(f"signature scheme {proof.scheme:#06x} was not offered, or is not the credential's")
    verify(proof.scheme, peer.key, proof.signature, signed_content(side, shake.transcript.hash()))
    shake.agreed.proof = SCHEMES[proof.scheme].name


# -- the client's half -------------------------------------------------------------------------------------------


class SigningClient:
    """[CertificateRequest] → Certificate → CertificateVerify → Finished, then our own."""

    def __init__(self, way: Signature, shake: Handshake, settings: Settings, host: str) -> None:
        self._way, self._shake, self._settings, self._host = way, shake, settings, host
        self._wanted: dict[int, bytes] | None = None

    def begin(self) -> None:
        self._shake.expect(
            {
                HandshakeType.CERTIFICATE_REQUEST: self._certificate_request,
                HandshakeType.CERTIFICATE: self._certificate,
            }
        )

    def _certificate_request(self, body: bytes, raw: bytes) -> None:
        self._wanted = read_request(body)
        accepted_schemes(self._wanted)
        self._shake.transcript.add(raw)
        self._shake.expect({HandshakeType.CERTIFICATE: self._certificate})

    def _certificate(self, body: bytes, raw: bytes) -> None:
        shake = self._shake
        shake.agreed.peer = _read_certificate(body, self._way, self._settings.trust, self._host)
        if shake.agreed.peer is None:
            raise decode_error("the server's certificate message is empty")
        shake.transcript.add(raw)
        shake.expect({HandshakeType.CERTIFICATE_VERIFY: self._certificate_verify})

    def _certificate_verify(self, body: bytes, raw: bytes) -> None:
        _check_verify(body, self._shake, self._way, SERVER)
        self._shake.transcript.add(raw)
        self._shake.expect({HandshakeType.FINISHED: self._finished})

    def _finished(self, body: bytes, raw: bytes) -> None:
        shake, schedule = self._shake, self._shake.schedule
        shake.check_finished(schedule.finished_key(shake.server_secret), body, raw)
        schedule.advance()
        client, server = shake.client_traffic(), shake.server_traffic()
        shake.read_with(server)
        if self._wanted is not None:
            self._send_certificate(self._wanted)
        shake.send_finished(schedule.finished_key(shake.client_secret))
        shake.write_with(client)
        shake.finish(tickets=True)

    def _send_certificate(self, wanted: dict[int, bytes]) -> None:
        """An empty list if we have none; the server ends the connection if it needs one."""
        credential = self._way.credential
        if credential is None:
            self._shake.send(certificate_message(()))
        else:
            proof = choose_proof(credential, wanted, self._settings.trust.clock())
            send_certificate(self._shake, credential, proof, CLIENT)


# -- the server's half -------------------------------------------------------------------------------------------


class SigningServer:
    """Our flight, then the client's [Certificate → CertificateVerify →] Finished."""

    def __init__(self, way: Signature, shake: Handshake, settings: Settings) -> None:
        self._way, self._shake, self._settings = way, shake, settings
        self._proof: Proof
        assert way.credential is not None, "a server has one"
        self._credential = way.credential
        self._client_traffic = b""

    def judge(self, offered: Mapping[int, bytes]) -> None:
        """The first credential that the client accepts."""
        now = self._settings.trust.clock()
        for credential in self._way.alternatives:
            if find_proof(self._credential, offered, now) is not None:
                break
            self._credential = credential
        self._proof = choose_proof(self._credential, offered, now)

    def begin(self) -> None:
        """After our Finished we write with traffic keys; the client's wait for its own."""
        shake, asks = self._shake, self._settings.ask_client
        if asks:
            shake.send(CertificateRequest(b"", self._way.offered()).encode())
        send_certificate(shake, self._credential, self._proof, SERVER)
        shake.send_finished(shake.schedule.finished_key(shake.server_secret))
        shake.schedule.advance()
        self._client_traffic = shake.client_traffic()
        shake.write_with(shake.server_traffic())
        if asks:
            shake.expect({HandshakeType.CERTIFICATE: self._certificate})
        else:
            shake.expect({HandshakeType.FINISHED: self._finished})

    def _certificate(self, body: bytes, raw: bytes) -> None:
        shake = self._shake
        shake.agreed.peer = _read_certificate(body, self._way, self._settings.trust, None)
        if shake.agreed.peer is None:
            raise certificate_required()
        shake.transcript.add(raw)
        shake.expect({HandshakeType.CERTIFICATE_VERIFY: self._certificate_verify})

    def _certificate_verify(self, body: bytes, raw: bytes) -> None:
        _check_verify(body, self._shake, self._way, CLIENT)
        self._shake.transcript.add(raw)
        self._shake.expect({HandshakeType.FINISHED: self._finished})

    def _finished(self, body: bytes, raw: bytes) -> None:
        shake = self._shake
        shake.check_finished(shake.schedule.finished_key(shake.client_secret), body, raw)
        shake.read_with(self._client_traffic)
        self._client_traffic = b""
        shake.finish(tickets=False)
