"""The part of a handshake that both sides share: messages from records, expected messages, secrets, and key changes.

Instead of a table of states, a side declares with `expect` which messages may come next and their handlers; any other
is an unexpected_message. A change of the read key must fall between two records (RFC 8446 section 5.1).
"""

from __future__ import annotations

import datetime
import hmac
from collections.abc import Callable, Mapping

import msgspec

from streams.security.tls13.alerts import Abort, Alert, decode_error, unexpected
from streams.security.tls13.certificates import Peer
from streams.security.tls13.key_schedule import KeySchedule, Transcript
from streams.security.tls13.messages import (
    MAX_BYTES,
    check_new_session_ticket,
    encode_finished,
    encode_key_update,
    parse_key_update,
)
from streams.security.tls13.names import ContentType, HandshakeType, message_name
from streams.security.tls13.records import RecordReader, RecordWriter
from streams.security.tls13.suites import Suite

HEADER_BYTES = 4
MAX_TICKETS = 32
"""OpenSSL and Node send two tickets even to a client that cannot use them; more than this many is an attack."""

Handler = Callable[[bytes, bytes], None]
"""Takes a message's body, and the whole message for the transcript."""
KeyLog = Callable[[str, bytes, bytes], None]
"""Takes a secret's label in NSS's format, the client's random, and the secret."""


class Agreed(msgspec.Struct):
    """The result of the negotiation so far."""

    suite: Suite | None = None
    group: int | None = None
    alpn: bytes | None = None
    peer: Peer | None = None
    proof: str | None = None
    """The algorithm that the peer has proved its key with: a signature scheme's name, or a KEM's."""
    names: tuple[str, ...] = ()
    """Of a peer that shows no certificate, since its key was distributed beforehand."""
    until: datetime.datetime | None = None
    """The end of that key."""


class Handshake:
    """One connection's handshake layer, before and after completion."""

    def __init__(self, reader: RecordReader, writer: RecordWriter, *, key_log: KeyLog | None) -> None:
        self.reader, self.writer = reader, writer
        self.agreed = Agreed()
        self.complete = False
        self.schedule: KeySchedule
        self.transcript: Transcript
        self.client_random = b""
        self.client_secret = self.server_secret = b""
        """The handshake traffic secrets, until they are used up."""
        self._key_log = key_log
        self._expected: Mapping[int, Handler] = {}
        self._partial = bytearray()
        self._flight = bytearray()
        self._write_secret_due = b""
        self._tickets = 0
        self._update_due = False

    # -- messages in -------------------------------------------------------------------------------------------

    def expect(self, handlers: Mapping[int, Handler]) -> None:
        """The messages that may come next, and nothing else."""
        self._expected = handlers

    @property
    def within_message(self) -> bool:
        """Whether a message has begun to come: nothing but the rest of it may follow (section 5.1)."""
        return bool(self._partial)

    def refuse_excess(self) -> None:
        """Where keys change, or our answer decides what comes next, nothing may have come yet of the next message."""
        if self._partial:
            raise unexpected("a handshake message came too early")

    def receive(self, fragment: bytes) -> None:
        """Take the content of a handshake record."""
        self._partial += fragment
        while len(self._partial) >= HEADER_BYTES:
            size = HEADER_BYTES + int.from_bytes(self._partial[1:HEADER_BYTES])
            handler = self._handler(self._partial[0], size - HEADER_BYTES)
            if len(self._partial) < size:
                break
            message = bytes(self._partial[:size])
            del self._partial[:size]
            handler(message[HEADER_BYTES:], message)
        self.flush()

    def _handler(self, kind: int, size: int) -> Handler:
        """The handler of a message, by its header alone: a message that may not come is never buffered."""
        handler = self._expected.get(kind)
        if handler is None:
            raise unexpected(f"{message_name(kind)} out of place")
        if size > MAX_BYTES[kind]:
            raise decode_error(f"{message_name(kind)} of {size} bytes")
        return handler

    # -- messages out ------------------------------------------------------------------------------------------

    def send(self, message: bytes) -> None:
        """A message of the handshake; those that follow each other under one key share records."""
        self.transcript.add(message)
        self._flight += message

    def flush(self) -> None:
        if self._flight:
            self.writer.write(ContentType.HANDSHAKE, bytes(self._flight))
            self._flight.clear()

    # -- secrets -----------------------------------------------------------------------------------------------

    def begin(self, suite: Suite, early: bytes | None = None) -> None:
        """The suite is known: transcript and schedule begin."""
        self.transcript = Transcript(suite.hash)
        self.schedule = KeySchedule(suite, early)

    def protect(self, secret: bytes) -> None:
        """After ServerHello: the handshake traffic secrets are there to be installed."""
        self.schedule.advance(secret)
        digest = self.transcript.hash()
        self.client_secret = self.derive("c hs traffic", digest, "CLIENT_HANDSHAKE_TRAFFIC_SECRET")
        self.server_secret = self.derive("s hs traffic", digest, "SERVER_HANDSHAKE_TRAFFIC_SECRET")

    def derive(self, label: str, digest: bytes, logged_as: str) -> bytes:
        """A secret of the schedule's present stage, noted in the key log if there is one."""
        secret = self.schedule.derive(label, digest)
        if self._key_log is not None:
            self._key_log(logged_as, self.client_random, secret)
        return secret

    def client_traffic(self) -> bytes:
        return self.derive("c ap traffic", self.transcript.hash(), "CLIENT_TRAFFIC_SECRET_0")

    def server_traffic(self) -> bytes:
        return self.derive("s ap traffic", self.transcript.hash(), "SERVER_TRAFFIC_SECRET_0")

    def read_with(self, secret: bytes, *, keep_previous: bool = False) -> None:
        """The peer's key changes here; with the one before kept for an alert of a peer that has not moved yet."""
        self.refuse_excess()
        self.reader.install(self.schedule.suite, secret, keep_previous=keep_previous)

    def write_with(self, secret: bytes) -> None:
        """Our key changes here."""
        self.flush()
        self.writer.install(self.schedule.suite, secret)

    def write_with_once_heard(self, secret: bytes) -> None:
        """Our key changes with the first record that authenticates under the present read key."""
        self._write_secret_due = secret

    def heard(self) -> None:
        """A record has come and authenticated."""
        if self._write_secret_due:
            secret, self._write_secret_due = self._write_secret_due, b""
            self.write_with(secret)

    # -- Finished ----------------------------------------------------------------------------------------------

    def send_finished(self, key: bytes) -> None:
        """A MAC over everything so far (section 4.4.4)."""
        self.send(encode_finished(self.schedule.verify_data(key, self.transcript.hash())))

    def check_finished(self, key: bytes, body: bytes, raw: bytes) -> None:
        """The peer's MAC; no change_cipher_spec may come after it."""
        expected = self.schedule.verify_data(key, self.transcript.hash())
        if len(body) != len(expected):
            raise decode_error(f"finished of {len(body)} bytes")
        if not hmac.compare_digest(body, expected):
            raise Abort(Alert.DECRYPT_ERROR, "the peer's finished is wrong")
        self.transcript.add(raw)
        self.reader.accept_change_cipher_spec = False

    def finish(self, *, tickets: bool) -> None:
        """The handshake is over; these messages may come at any time from now on."""
        self.flush()
        self.schedule.forget()
        self.client_secret = self.server_secret = b""
        self.complete = True
        after: dict[int, Handler] = {HandshakeType.KEY_UPDATE: self._key_update}
        if tickets:
            after[HandshakeType.NEW_SESSION_TICKET] = self._ticket
        self.expect(after)

    # -- after completion --------------------------------------------------------------------------------------

    def _key_update(self, body: bytes, _: bytes) -> None:
        """Several requests between two of our writes are answered once (section 4.6.3)."""
        requested = parse_key_update(body)
        self.refuse_excess()
        self.reader.update()
        self._update_due = self._update_due or requested

    def update_before_write(self) -> None:
        """Change our key if the peer asked for it, or if it has protected as much as it should."""
        if self._update_due or self.writer.worn:
            self._update_due = False
            self.writer.write(ContentType.HANDSHAKE, encode_key_update(request=False))
            self.writer.update()

    def _ticket(self, body: bytes, _: bytes) -> None:
        """Looked at, counted and dropped: this stack resumes nothing."""
        check_new_session_ticket(body)
        self._tickets += 1
        if self._tickets > MAX_TICKETS:
            raise unexpected(f"more than {MAX_TICKETS} session tickets")
