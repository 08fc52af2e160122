"""An endpoint over this TLS 1.3: its handshake, the facts of it, the reasons of a failure, and the data of a link.

`Abort` and the peer's alerts become HandshakeFailed here. The end of a connection is remembered: data that came before
it is handed out first.
"""

from __future__ import annotations

import threading
import time

from streams.errors import HandshakeFailed, LinkError
from streams.security.authentication import weakest
from streams.security.endpoint import Facts
from streams.security.pki import certificate_id, identities, key_algorithm, key_name
from streams.security.tls13.alerts import FATAL, WARNING, Abort, Alert, PeerAlert, alert_name, decode_error, unexpected
from streams.security.tls13.client import Client
from streams.security.tls13.groups import GROUP_NAMES
from streams.security.tls13.names import ContentType
from streams.security.tls13.records import MAX_CIPHERTEXT, MAX_PLAINTEXT, RecordReader, RecordWriter
from streams.security.tls13.server import Server

READ_BYTES = 128 * 1024
MAX_CANCELLATIONS = 4
"""user_canceled changes nothing by itself; a close_notify should follow the first."""
_DATA = int(ContentType.APPLICATION_DATA)


class _Decrypted(threading.local):
    """The buffer that all endpoints of a thread decrypt into, so that it stays in the core's cache."""

    def __init__(self) -> None:
        self.room = memoryview(bytearray(READ_BYTES + MAX_CIPHERTEXT))


_decrypted = _Decrypted()


class Tls13Endpoint:
    """One side of one connection, made by party.py; `Endpoint` says what each method does."""

    renews_keys = True
    has_records = True

    def __init__(self, side: Client | Server, reader: RecordReader, writer: RecordWriter) -> None:
        self._side, self._reader, self._writer = side, reader, writer
        self._shake = side.shake
        self.complete = False
        self.bytes_in = self.bytes_out = 0
        self._counted = 0
        self._ended = False
        self._closed = False
        self._said_goodbye = False
        self._cancellations = 0
        self._failure: HandshakeFailed | None = None
        self._begun = False
        self._started = self._seconds = 0.0

    # -- handshake ---------------------------------------------------------------------------------------------

    def handshake(self) -> bool:
        if self._failure is not None:
            raise self._failure
        self._begin()
        try:
            while not (self._shake.complete or self._closed) and (record := self._reader.next()) is not None:
                self._take_record(record.kind, record.content)
        except (Abort, PeerAlert) as error:
            raise self._fail(error)  # noqa: B904 — its cause is set already
        finally:
            self._count_out()
        if self._shake.complete:
            self.complete = True
            self._seconds = time.perf_counter() - self._started
            self.bytes_in -= self._reader.waiting  # data that came with the peer's last flight
            return True
        if self._ended or self._closed:
            raise HandshakeFailed("disconnected", "the peer closed the connection during the handshake")
        return False

    def _begin(self) -> None:
        if not self._started:
            self._started = time.perf_counter()
        if not self._begun:
            self._begun = True
            try:
                self._side.start()
            except HandshakeFailed as error:
                self._failure = error
                raise

    def _count_out(self) -> None:
        """Bytes of the handshake that have been written and not been counted yet."""
        out = self._writer.out
        self.bytes_out += sum(map(len, out[self._counted :]))
        self._counted = len(out)

    def facts(self, connect_seconds: float = 0.0) -> Facts:
        agreed = self._shake.agreed
        leaf = agreed.peer.leaf if agreed.peer is not None else None
        chain = () if agreed.peer is None else (agreed.peer.leaf, *agreed.peer.between)
        return Facts(
            version="TLSv1.3" if agreed.suite is not None else "none",
            group=GROUP_NAMES[agreed.group] if agreed.group is not None else "none",
            cipher=agreed.suite.name if agreed.suite is not None else "none",
            authentication=self._authentication(),
            identities=identities(leaf) if leaf is not None else agreed.names,
            certificates=tuple(map(certificate_id, chain)),
            certificate_expires=leaf.not_valid_after_utc if leaf is not None else agreed.until,
            certificate_algorithm=self._key_algorithm(),
            stack="tls13",
            handshake_seconds=self._seconds or (time.perf_counter() - self._started if self._started else 0.0),
            connect_seconds=connect_seconds,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
        )

    def _key_algorithm(self) -> str:
        agreed = self._shake.agreed
        if agreed.peer is not None:
            delegated = agreed.peer.delegated_scheme is not None
            return key_algorithm(agreed.peer.leaf) if delegated else key_name(agreed.peer.key)  # it is parsed already
        return (agreed.proof or "none") if agreed.names else "none"

    def _authentication(self) -> str:
        """The weakest of what the peer's identity depends on: the proof of its key, its chain, its credential."""
        proof, peer = self._shake.agreed.proof, self._shake.agreed.peer
        if proof is None or peer is None:
            return proof or "none"
        delegated = (peer.delegated_by,) if peer.delegated_by is not None else ()
        return weakest([proof, *delegated, *peer.chain_schemes])

    # -- bytes -------------------------------------------------------------------------------------------------

    def feed(self, ciphertext: memoryview | bytes | bytearray) -> None:
        if not self.complete:
            self.bytes_in += len(ciphertext)
            if not self._started:
                self._started = time.perf_counter()
        if self._failure is None and not self._closed:
            self._reader.feed(ciphertext)

    def feed_eof(self) -> None:
        self._ended = True

    def take(self) -> list[bytes | bytearray]:
        parts, self._writer.out = self._writer.out, []
        self._counted = 0
        return parts

    def read(self) -> bytes | None:
        if self._failure is None and not self._closed and self.complete:
            room = _decrypted.room
            if filled := self._open_records(room):
                return bytes(room[:filled])
        if self._failure is not None:
            raise self._failure
        if self._closed:
            return None
        if self._ended:
            raise LinkError("the link was cut without a close_notify")
        return b""

    def _open_records(self, room: memoryview) -> int:
        """Whole records until the room is full or no more came; each overwrites the type byte of the one before."""
        reader, filled = self._reader, 0
        try:
            while filled <= READ_BYTES - MAX_PLAINTEXT and (found := reader.next_into(room[filled:])) is not None:
                kind, size = found
                if kind == _DATA and not self._shake.within_message:
                    filled += size
                else:
                    self._take_record(kind, bytes(room[filled : filled + size]))
                    if self._closed:
                        break
        except (Abort, PeerAlert) as error:
            self._fail(error)
        return filled

    def write(self, plaintext: memoryview | bytes | bytearray) -> None:
        if self._failure is not None or self._said_goodbye or not self.complete:
            raise LinkError("cannot encrypt: the connection is not open")
        if len(plaintext):
            self._shake.update_before_write()
            self._writer.write(_DATA, plaintext)

    def close(self) -> None:
        if self.complete and self._failure is None and not self._said_goodbye:
            self._said_goodbye = True
            self._writer.write(ContentType.ALERT, bytes((WARNING, Alert.CLOSE_NOTIFY)))

    # -- records that hold no data -----------------------------------------------------------------------------

    def _take_record(self, kind: int, content: bytes) -> None:
        self._shake.heard()
        if kind == ContentType.HANDSHAKE:
            self._shake.receive(content)
        elif self._shake.within_message:
            raise unexpected("a handshake message is interrupted")
        elif kind == ContentType.ALERT:
            self._take_alert(content)
        else:
            raise unexpected("data during the handshake")

    def _take_alert(self, content: bytes) -> None:
        """Section 6: everything but these two ends the connection, at any level."""
        if len(content) != 2:
            raise decode_error(f"an alert of {len(content)} bytes")
        if content[1] == Alert.CLOSE_NOTIFY:
            self._closed = True
        elif content[1] != Alert.USER_CANCELED:
            raise PeerAlert(content[1])
        else:
            self._cancellations += 1
            if self._cancellations > MAX_CANCELLATIONS:
                raise unexpected(f"more than {MAX_CANCELLATIONS} user_canceled alerts")

    def _fail(self, error: Abort | PeerAlert) -> HandshakeFailed:
        """Remember why, and have the alert ready if it was us who said no."""
        if isinstance(error, PeerAlert):
            alert = alert_name(error.code)
            text = f"the peer refused with the alert {alert!r}"
            self._failure = HandshakeFailed("alert_received", text, alert=alert)
        else:
            self._writer.write(ContentType.ALERT, bytes((FATAL, error.alert)))
            self._failure = HandshakeFailed(error.reason, f"TLS: {error.text}")
        self._failure.__cause__ = error
        return self._failure
