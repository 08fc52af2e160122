"""The record layer (RFC 8446 section 5): one object for each direction, keys changed by the handshake.

Sealing and opening go through `encrypt_into` and `decrypt_into` into buffers that are kept: with `encrypt` and joins
the same work takes four times as long. Records are found by offset; the type byte after the content costs one copy
of the plaintext when sealing, which cannot be avoided.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

from cryptography.exceptions import InvalidTag

from streams.security.tls13.alerts import Abort, Alert, unexpected
from streams.security.tls13.key_schedule import TrafficKeys, next_traffic_secret, traffic_keys
from streams.security.tls13.names import TLS12, ContentType
from streams.security.tls13.suites import TAG_BYTES, Suite

MAX_PLAINTEXT = 1 << 14
MAX_CIPHERTEXT = MAX_PLAINTEXT + 256
HEADER_BYTES = 5
ALERT_BYTES = 2
SHORT = 4096
"""Content of at most so many bytes is sealed without the buffers, which cost more than they save."""
MAX_EMPTY = 32
"""At most this many records without content, or dummies, may follow each other: each costs work and carries nothing."""

UPDATE_RECORDS = 1 << 23
UPDATE_BYTES = 64 << 30
"""A sender changes its key after either: AES-GCM allows 2^24.5 full records (section 5.5)."""

_HANDSHAKE, _ALERT, _CCS, _DATA = (
    int(kind)
    for kind in (
        ContentType.HANDSHAKE,
        ContentType.ALERT,
        ContentType.CHANGE_CIPHER_SPEC,
        ContentType.APPLICATION_DATA,
    )
)
_MAJOR = TLS12 >> 8
_CCS_RECORD = b"\x14\x03\x03\x00\x01\x01"


def _header(length: int) -> bytes:
    """Of a protected record with so much content."""
    return b"\x17\x03\x03" + (length + 1 + TAG_BYTES).to_bytes(2)


_NOTHING = memoryview(b"")


class _Rooms(threading.local):
    """A thread's buffers: content gets its type byte in one before it is sealed; the other takes opened records."""

    def __init__(self) -> None:
        self.sealing = memoryview(bytearray(MAX_PLAINTEXT + 1))
        self.opening = memoryview(bytearray(MAX_CIPHERTEXT))


_rooms = _Rooms()


class RecordWriter:
    """Content to records. Sealed records wait in `out`."""

    def __init__(self) -> None:
        self.out: list[bytes | bytearray] = []
        self.records = self.bytes = 0
        self.first_version = b"\x03\x03"
        self._ccs_due = False
        self._keys: TrafficKeys | None = None
        self._secret = b""
        self._suite: Suite

    @property
    def protected(self) -> bool:
        return self._keys is not None

    def install(self, suite: Suite, secret: bytes) -> None:
        """Seal with keys of this secret from now on; sequence numbers start over."""
        self._suite, self._secret = suite, secret
        self._keys = traffic_keys(suite, secret)
        self.records = self.bytes = 0

    def update(self) -> None:
        """The next generation of keys."""
        self.install(self._suite, next_traffic_secret(self._suite, self._secret))

    def change_cipher_spec(self) -> None:
        """The dummy that makes middleboxes take this for TLS 1.2 (appendix D.4)."""
        self.out.append(_CCS_RECORD)
        self._ccs_due = False

    def change_cipher_spec_before_sealed(self) -> None:
        """Send that dummy directly before the first protected record."""
        self._ccs_due = True

    @property
    def worn(self) -> bool:
        """Whether these keys have protected as much as they should."""
        return self.records >= UPDATE_RECORDS or self.bytes >= UPDATE_BYTES

    def write(self, kind: int, content: bytes | bytearray | memoryview) -> None:
        """Content of any length in as many records as it takes."""
        if self._keys is None:
            self._write_plain(kind, bytes(content))
        else:
            if self._ccs_due:
                self.change_cipher_spec()
            seal = self._seal_short if len(content) <= SHORT else self._seal
            self.out.append(seal(self._keys, kind, content))

    def _write_plain(self, kind: int, content: bytes) -> None:
        for start in range(0, len(content), MAX_PLAINTEXT):
            piece = content[start : start + MAX_PLAINTEXT]
            self.out.append(bytes((kind,)) + self.first_version + len(piece).to_bytes(2) + piece)
            self.first_version = b"\x03\x03"

    def _seal_short(self, keys: TrafficKeys, kind: int, content: bytes | bytearray | memoryview) -> bytes:
        header = _header(len(content))
        inner = b"".join((content, bytes((kind,))))
        sealed = keys.aead.encrypt((keys.iv ^ self.records).to_bytes(12), inner, header)
        self.records += 1
        self.bytes += len(content)
        return header + sealed

    def _seal(self, keys: TrafficKeys, kind: int, data: bytes | bytearray | memoryview) -> bytearray:
        content = memoryview(data)
        size = len(content)
        count = -(-size // MAX_PLAINTEXT)
        sealed = bytearray(size + count * (HEADER_BYTES + 1 + TAG_BYTES))
        encrypt_into, iv, sequence = keys.aead.encrypt_into, keys.iv, self.records
        length = min(size, MAX_PLAINTEXT)
        inner, header = _rooms.sealing[: length + 1], _header(length)
        inner[length] = kind
        with memoryview(sealed) as target:
            at = 0
            for start in range(0, size, MAX_PLAINTEXT):
                if size - start < length:  # the last one is shorter
                    length = size - start
                    inner, header = inner[: length + 1], _header(length)
                    inner[length] = kind
                inner[:length] = content[start : start + length]
                body = at + HEADER_BYTES
                end = body + length + 1 + TAG_BYTES
                target[at:body] = header
                encrypt_into((iv ^ sequence).to_bytes(12), inner, header, target[body:end])
                sequence += 1
                at = end
        self.records = sequence
        self.bytes += size
        return sealed


class Record(NamedTuple):
    """An opened record."""

    kind: int
    content: bytes


class RecordReader:
    """Records to content, one at a time, so that keys can change between two of them."""

    def __init__(self) -> None:
        self._data = _NOTHING
        self._at = 0
        self.sequence = 0
        self._empty_in_a_row = 0
        self._keys: TrafficKeys | None = None
        self._previous: tuple[TrafficKeys, int] | None = None
        self._secret = b""
        self._suite: Suite
        self._any_opened = False
        self.accept_change_cipher_spec = False

    @property
    def waiting(self) -> int:
        """Bytes that have come and are in no record that was handed out."""
        return len(self._data) - self._at

    def install(self, suite: Suite, secret: bytes, *, keep_previous: bool = False) -> None:
        """Open with keys of this secret from now on; sequence numbers start over.

        The keys before may be kept: if the first record does not authenticate it is tried with them, and taken if it
        holds an alert, so that alerts of a peer that has not changed its keys yet keep their names.
        """
        self._previous = (self._keys, self.sequence) if keep_previous and self._keys is not None else None
        self._suite, self._secret = suite, secret
        self._keys = traffic_keys(suite, secret)
        self.sequence = 0

    def update(self) -> None:
        """The next generation of keys, since the peer has changed to it."""
        self.install(self._suite, next_traffic_secret(self._suite, self._secret))

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes from the peer. What is left of those before is part of one record."""
        left = self._data[self._at :]
        self._data = memoryview(bytes(data) if not left else b"".join((left, data)))
        self._at = 0

    def next(self) -> Record | None:
        """The next record's content, or None if it has not come whole. For handshakes, where few bytes travel."""
        room = _rooms.opening
        found = self.next_into(room)
        return None if found is None else Record(found[0], bytes(room[: found[1]]))

    def next_into(self, room: memoryview) -> tuple[int, int] | None:
        """Like `next`, with the content written to `room` (of at least MAX_CIPHERTEXT bytes); returns type and size."""
        data, at = self._data, self._at
        have = len(data) - at
        if have < HEADER_BYTES:
            if not have:
                self._data, self._at = _NOTHING, 0  # an idle link keeps no memory
            elif not _CCS <= data[at] <= _DATA or (have > 1 and data[at + 1] != _MAJOR):
                raise self._not_tls()
            return None
        kind = data[at]
        if not _CCS <= kind <= _DATA or data[at + 1] != _MAJOR:
            raise self._not_tls()
        size = data[at + 3] << 8 | data[at + 4]
        sealed = self._keys is not None and kind == _DATA
        if size > (MAX_CIPHERTEXT if sealed else MAX_PLAINTEXT):
            raise Abort(Alert.RECORD_OVERFLOW, f"a record of {size} bytes")
        body = at + HEADER_BYTES
        end = body + size
        if have < HEADER_BYTES + size:
            return None
        if sealed:
            kind, size = self._open(bytes(data[at:body]), data[body:end], room)
        else:
            self._check_plain(kind, data[body:end])
            room[:size] = data[body:end]
        self._at = end
        if size and kind != _CCS:
            self._empty_in_a_row = 0
        else:
            self._count_empty(kind, size)
        return self.next_into(room) if kind == _CCS else (kind, size)

    def _not_tls(self) -> Abort:
        """At the first byte that cannot be TLS, before waiting for more of it."""
        reason = "tls_error" if self._any_opened or self._keys is not None else "not_tls"
        return Abort(Alert.UNEXPECTED_MESSAGE, "the peer's bytes are not a TLS record", reason)

    def _check_plain(self, kind: int, body: memoryview) -> None:
        """Only these come unprotected: handshake messages before there are keys, one change_cipher_spec, alerts."""
        if kind == _CCS:
            if not self.accept_change_cipher_spec or bytes(body) != b"\x01":
                raise unexpected("change_cipher_spec out of place")
            return
        alert = kind == _ALERT and len(body) == ALERT_BYTES
        if kind == _DATA or (self._keys is not None and (not alert or self._any_opened)):
            raise unexpected(f"an unprotected record of type {kind}")

    def _open(self, header: bytes, body: memoryview, room: memoryview) -> tuple[int, int]:
        keys = self._keys
        assert keys is not None
        size = len(body) - TAG_BYTES
        if size < 1:
            raise Abort(Alert.BAD_RECORD_MAC, "a protected record that is too short")
        inner = room[:size]
        previous, self._previous = self._previous, None
        try:
            keys.aead.decrypt_into((keys.iv ^ self.sequence).to_bytes(12), body, header, inner)
        except InvalidTag:
            self._open_as_before(previous, header, body, inner)
        self.sequence += 1
        self._any_opened = True
        size -= 1
        if size > MAX_PLAINTEXT:  # padding counts (section 5.4)
            raise Abort(Alert.RECORD_OVERFLOW, f"a record of {size} bytes")
        kind = inner[size]
        if kind == 0:
            kind, size = _without_padding(inner)
        if kind == _CCS or not _CCS < kind <= _DATA:
            raise unexpected(f"a protected record of type {kind}")
        return kind, size

    def _open_as_before(
        self, previous: tuple[TrafficKeys, int] | None, header: bytes, body: memoryview, inner: memoryview
    ) -> None:
        """A record that the present keys do not authenticate may be an alert under the previous ones."""
        spoiled = Abort(Alert.BAD_RECORD_MAC, "a record does not authenticate")
        if previous is None:
            raise spoiled from None
        keys, sequence = previous
        try:
            keys.aead.decrypt_into((keys.iv ^ sequence).to_bytes(12), body, header, inner)
        except InvalidTag:
            raise spoiled from None
        if inner[-1] != _ALERT:
            raise spoiled

    def _count_empty(self, kind: int, size: int) -> None:
        self._empty_in_a_row += 1
        if (not size and kind != _DATA) or self._empty_in_a_row > MAX_EMPTY:
            raise unexpected("an empty record")


def _without_padding(inner: memoryview) -> tuple[int, int]:
    """Type and size of content that zeros follow (section 5.4)."""
    content = bytes(inner).rstrip(b"\0")
    if not content:
        raise unexpected("a protected record of zeros")
    return content[-1], len(content) - 1
