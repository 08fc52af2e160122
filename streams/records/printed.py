"""A record as one line of output, whatever its bytes are."""

from __future__ import annotations

import base64

import msgspec

from streams.records.body import BytesLike

_decode = msgspec.json.Decoder(msgspec.Raw).decode
_encode = msgspec.json.Encoder().encode


def for_terminal(line: bytes) -> bytes:
    """A line of JSON that does nothing to a terminal: what is not printable becomes an escape of JSON."""
    text = line.decode()
    return line if text.isprintable() else "".join(map(_printable, text)).encode()


def _printable(character: str) -> str:
    if character.isprintable():
        return character
    if character < " ":  # JSON has these between values alone
        return " "
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def printed(value: BytesLike) -> bytes:
    """A JSON object as it is, on one line; any other record as `{"record_base64": …}`. Without a newline at the end."""
    record = bytes(value)
    if record.lstrip().startswith(b"{"):
        try:
            _decode(record)
            record.decode()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
        else:
            return record.replace(b"\n", b" ")  # only white space may be a newline there
    return _encode({"record_base64": base64.b64encode(record).decode()})
