"""A record as one line of output, whatever its bytes are."""

from __future__ import annotations

import base64

import msgspec

from streams.records.body import BytesLike

_decode = msgspec.json.Decoder(msgspec.Raw).decode
_encode = msgspec.json.Encoder().encode


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
