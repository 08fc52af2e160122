"""A handshake taken apart, from the bytes on the wire: messages, flights, and the size of each part.

It parses TLS records (RFC 8446 §5, RFC 5246 §6.2) and decrypts those of TLS 1.3 with the secrets of a key log
(SSLKEYLOGFILE, RFC 9850). It does not use OpenSSL, so it is an independent check of what OpenSSL reports. It is for our
own handshakes only: malformed or unknown input raises arbitrary exceptions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Literal, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.serialization import Encoding

from bench.handshakes.der import key_bits
from streams.security.modes import TLS13

Sender = Literal["client", "server"]
CLIENT_HELLO, SERVER_HELLO, CERTIFICATE, SERVER_KEY_EXCHANGE = 1, 2, 11, 12
CERTIFICATE_VERIFY, CLIENT_KEY_EXCHANGE, FINISHED, KEM_ENCAPSULATION = 15, 16, 20, 30
_CHANGE_CIPHER_SPEC, _HANDSHAKE, _APPLICATION_DATA = 20, 22, 23
_KEY_SHARE, _STORED_AUTH_KEY = 51, 0xFF4B
_SUITES: Mapping[str, tuple[Any, int, type[hashes.HashAlgorithm]]] = {
    "TLS_AES_128_GCM_SHA256": (AESGCM, 16, hashes.SHA256),
    "TLS_AES_256_GCM_SHA384": (AESGCM, 32, hashes.SHA384),
    "TLS_CHACHA20_POLY1305_SHA256": (ChaCha20Poly1305, 32, hashes.SHA256),
}


class Message(NamedTuple):
    """One handshake message. The Finished of TLS 1.2 stays encrypted."""

    sender: Sender
    kind: int
    body: bytes


class Weights(NamedTuple):
    """Bytes of one handshake. Of certificates, keys and signatures count, without the names around them.

    A side's authentication is what proves it: also the ciphertext that the other side sends to its key.
    """

    flights: int
    round_trips: int
    to_server: int
    to_client: int
    key_exchange: int
    server_authentication: int
    client_authentication: int
    authentication_messages: int


class _Cursor:
    """Reads a message from the front."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, size: int) -> bytes:
        self._at += size
        assert self._at <= len(self._data), "a message ends too early"
        return self._data[self._at - size : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def vector(self, length_bytes: int) -> bytes:
        return self.take(self.number(length_bytes))

    def __bool__(self) -> bool:
        return self._at < len(self._data)


# -- records into messages -----------------------------------------------------------------------------------------


class _Side:
    """What one end sent, up to its Finished; the tickets and data that follow are not part of the handshake."""

    def __init__(self, sender: Sender, cipher: str, known: Sequence[bytes]) -> None:
        """`known`: its secrets, in the order in which it used them."""
        self._sender: Sender = sender
        self._stream, self._handshake = bytearray(), bytearray()
        self._encrypted = self._over = False
        self.wire_bytes = 0
        self._cipher, self._secrets = cipher, iter(known)
        self._next_keys()

    def _next_keys(self) -> None:
        self._sequence = 0
        secret = next(self._secrets, None)
        if secret is not None:
            kind, key_bytes, algorithm = _SUITES[self._cipher]
            self._aead = kind(_expand(secret, b"key", key_bytes, algorithm))
            self._iv = int.from_bytes(_expand(secret, b"iv", 12, algorithm))

    def feed(self, data: bytes) -> Iterable[Message]:
        self._stream += data
        while not self._over and len(self._stream) >= 5:
            end = 5 + int.from_bytes(self._stream[3:5])
            if len(self._stream) < end:
                return
            header, body = bytes(self._stream[:5]), bytes(self._stream[5:end])
            del self._stream[:end]
            self.wire_bytes += end
            yield from self._record(header, body)

    def _record(self, header: bytes, body: bytes) -> Iterable[Message]:
        if header[0] == _APPLICATION_DATA:
            body = self._open(header, body)
        elif header[0] == _CHANGE_CIPHER_SPEC:  # TLS 1.3 sends one for old middleboxes
            self._encrypted = True
            return
        elif self._encrypted:
            self._over = True
            yield Message(self._sender, FINISHED, body)
            return
        self._handshake += body
        while len(self._handshake) >= 4 and len(self._handshake) >= (end := 4 + int.from_bytes(self._handshake[1:4])):
            message = Message(self._sender, self._handshake[0], bytes(self._handshake[4:end]))
            del self._handshake[:end]
            self._over = self._over or message.kind == FINISHED
            yield message

    def _open(self, header: bytes, body: bytes) -> bytes:
        try:
            inner = self._decrypt(header, body)
        except InvalidTag:  # KEMTLS changes keys within the handshake
            self._next_keys()
            inner = self._decrypt(header, body)
        self._sequence += 1
        inner = inner.rstrip(b"\0")
        assert inner[-1] == _HANDSHAKE, "these keys encrypt only handshake messages"
        return inner[:-1]

    def _decrypt(self, header: bytes, body: bytes) -> bytes:
        return bytes(self._aead.decrypt((self._iv ^ self._sequence).to_bytes(12), body, header))


def _expand(secret: bytes, label: bytes, size: int, algorithm: type[hashes.HashAlgorithm]) -> bytes:
    """HKDF-Expand-Label with an empty context (RFC 8446 §7.1)."""
    name = b"tls13 " + label
    return HKDFExpand(algorithm(), size, size.to_bytes(2) + bytes([len(name)]) + name + b"\0").derive(secret)


def secrets(key_log: str) -> dict[Sender, list[bytes]]:
    """The handshake secrets in a key log of one connection, in the order of their use; none for TLS 1.2."""
    found: dict[Sender, list[bytes]] = {"client": [], "server": []}
    for label, _, secret in (line.split() for line in key_log.splitlines()):
        if label.endswith("HANDSHAKE_TRAFFIC_SECRET"):
            found["client" if label.startswith("CLIENT") else "server"].append(bytes.fromhex(secret))
    return found


def take_apart(
    pieces: Iterable[tuple[Sender, bytes]], *, cipher: str, key_log: str
) -> tuple[list[Message], dict[Sender, int]]:
    """The messages in order, and the bytes on the wire that each end sent."""
    known = secrets(key_log)
    sides: dict[Sender, _Side] = {
        "client": _Side("client", cipher, known["client"]),
        "server": _Side("server", cipher, known["server"]),
    }
    messages = [message for sender, data in pieces for message in sides[sender].feed(data)]
    return messages, {sender: side.wire_bytes for sender, side in sides.items()}


# -- sizes ---------------------------------------------------------------------------------------------------------


def key_exchange_bytes(message: Message) -> int:
    """Public keys and ciphertexts of the key exchange in a message."""
    cursor = _Cursor(message.body)
    if message.kind == SERVER_KEY_EXCHANGE:
        cursor.take(3)  # named curve
        return len(cursor.vector(1))
    if message.kind == CLIENT_KEY_EXCHANGE:
        return len(cursor.vector(1))
    if message.kind not in (CLIENT_HELLO, SERVER_HELLO):
        return 0
    shares = _Cursor(_extensions(message).get(_KEY_SHARE, b""))
    if message.kind == CLIENT_HELLO and shares:
        shares = _Cursor(shares.vector(2))
    total = 0
    while shares:
        shares.take(2)  # group
        total += len(shares.vector(2))
    return total


def _extensions(hello: Message) -> dict[int, bytes]:
    cursor = _Cursor(hello.body)
    cursor.take(34)  # version and random
    cursor.vector(1)  # session
    if hello.kind == CLIENT_HELLO:
        cursor.vector(2)  # cipher suites
        cursor.vector(1)  # compression
    else:
        cursor.take(3)
    extensions, found = _Cursor(cursor.vector(2)), {}
    while extensions:
        kind = extensions.number(2)
        found[kind] = extensions.vector(2)
    return found


def proofs(message: Message) -> Iterator[tuple[Sender, int]]:
    """Who proves with a part of this message that it has its certificate's key, and the size of that part.

    It is a signature, or a ciphertext that only the owner of a KEM's key can use, and that the other side has made.
    """
    cursor = _Cursor(message.body)
    if message.kind == KEM_ENCAPSULATION:
        cursor.vector(1)  # context
        yield ("server" if message.sender == "client" else "client"), len(cursor.vector(2))
    elif message.kind == CLIENT_HELLO and (stored := _extensions(message).get(_STORED_AUTH_KEY)) is not None:
        cursor = _Cursor(stored)
        cursor.take(32)  # the key's fingerprint
        yield "server", len(cursor.vector(2))
    elif message.kind in (SERVER_KEY_EXCHANGE, CERTIFICATE_VERIFY):
        if message.kind == SERVER_KEY_EXCHANGE:
            cursor.take(3)
            cursor.vector(1)
        cursor.take(2)  # algorithm
        yield message.sender, len(cursor.vector(2))


def certificates(message: Message, version: str) -> list[x509.Certificate]:
    """The chain in a Certificate message."""
    cursor = _Cursor(message.body)
    if version == TLS13:
        cursor.vector(1)  # context
    chain, found = _Cursor(cursor.vector(3)), []
    while chain:
        found.append(x509.load_der_x509_certificate(chain.vector(3)))
        if version == TLS13:
            chain.vector(2)  # extensions
    return found


def _certificate_bytes(certificate: x509.Certificate) -> int:
    """Size of its public key and signature as in published sums: without names and the DER around them."""
    return len(key_bits(certificate.public_bytes(Encoding.DER))) + len(certificate.signature)


def weigh(messages: Sequence[Message], wire_bytes: Mapping[Sender, int], version: str) -> Weights:
    """Sizes of the parts of a handshake. The client may send data after the counted round trips."""
    authentication: dict[Sender, int] = {"client": 0, "server": 0}
    whole_messages = 0
    for message in messages:
        for side, proof in proofs(message):
            authentication[side] += proof
            if message.kind in (SERVER_KEY_EXCHANGE, CLIENT_HELLO):
                whole_messages += 4 + proof  # with its algorithm and length
        if message.kind == CERTIFICATE:
            authentication[message.sender] += sum(map(_certificate_bytes, certificates(message, version)))
        if message.kind in (CERTIFICATE, CERTIFICATE_VERIFY, KEM_ENCAPSULATION):
            whole_messages += 4 + len(message.body)
    flights = [sender for sender, _ in groupby(message.sender for message in messages)]
    return Weights(
        flights=len(flights),
        round_trips=flights.count("server"),
        to_server=wire_bytes["client"],
        to_client=wire_bytes["server"],
        key_exchange=sum(map(key_exchange_bytes, messages)),
        server_authentication=authentication["server"],
        client_authentication=authentication["client"],
        authentication_messages=whole_messages,
    )
