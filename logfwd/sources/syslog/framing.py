"""Where messages end on a stream connection (RFC 6587): octet counting or newlines. No I/O.

The first byte of a connection decides, a digit for octet counting and "<" for newlines, and the decision is kept: a
sender that is out of step must not have parts of messages taken for messages. What breaks the framing ends the
connection; messages before it are delivered.

    octet counting    MSG-LEN SP MSG, MSG-LEN in digits without a leading zero
    newlines          MSG LF; empty lines are skipped
"""

from __future__ import annotations

_LT, _ZERO, _NINE = b"<09"
_MOST_DIGITS = 7


class Framer:
    """Cuts the bytes of one connection into messages. At most one unfinished message is kept, within its limit.

    `breach` is why nothing more can be taken, once that is so: "first_byte", "octet_count" or "too_long".
    """

    def __init__(self, max_message_bytes: int) -> None:
        self._most = max_message_bytes
        self._rest = b""
        self._counted: bool | None = None
        self.breach = ""

    @property
    def counts_octets(self) -> bool:
        """True if the length of each message is sent before it."""
        return bool(self._counted)

    @property
    def is_unfinished(self) -> bool:
        """True while the beginning of a message waits for its rest."""
        return bool(self._rest)

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that end in these bytes, in order."""
        if self.breach or not data:
            return []
        if self._counted is None:
            if data[0] != _LT and not _ZERO < data[0] <= _NINE:
                self.breach = "first_byte"
                return []
            self._counted = data[0] != _LT
        if self._rest:
            data = self._rest + data
        return self._by_count(data) if self._counted else self._by_line(data)

    def end(self) -> bytes:
        """The peer sends no more: what it has begun and not finished."""
        rest, self._rest = self._rest, b""
        return rest

    def _by_line(self, data: bytes) -> list[bytes]:
        *lines, self._rest = data.split(b"\n")
        if len(self._rest) > self._most or max(map(len, lines), default=0) > self._most:
            return self._until_too_long([*lines, self._rest])
        return [line for line in lines if line]

    def _until_too_long(self, lines: list[bytes]) -> list[bytes]:
        self.breach, self._rest = "too_long", b""
        first = next(index for index, line in enumerate(lines) if len(line) > self._most)
        return [line for line in lines[:first] if line]

    def _by_count(self, data: bytes) -> list[bytes]:
        messages, start = list[bytes](), 0
        while start < len(data):
            space = data.find(b" ", start, start + _MOST_DIGITS + 1)
            count = data[start:space] if space >= 0 else data[start : start + _MOST_DIGITS + 1]
            if not count.isdigit() or count[0] == _ZERO or (space < 0 and len(count) > _MOST_DIGITS):
                self.breach, self._rest = "octet_count", b""
                return messages
            if space < 0:
                break
            if int(count) > self._most:
                self.breach, self._rest = "too_long", b""
                return messages
            end = space + 1 + int(count)
            if end > len(data):
                break
            messages.append(data[space + 1 : end])
            start = end
        self._rest = data[start:]
        return messages
