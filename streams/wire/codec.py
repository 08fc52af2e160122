"""Messages to msgpack and back. BATCH goes by hand around its payload, so that the payload is never copied.

Any bytes are survived: what is not a message of this version raises ProtocolError and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgpack
import msgspec

from streams.errors import Code, ProtocolError
from streams.wire import messages as m

BATCH_TAG = 5
_BATCH_FIELDS = 5  # number, seq, run, record count, payload
_PLAIN = m.Hello | m.Welcome | m.OpenRun | m.Run | m.Ack | m.Nack | m.Report | m.Ping | m.Pong | m.Goaway | m.Error
_TAGS = frozenset(range(1, 13))

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(_PLAIN)


def encode(message: m.Message) -> list[bytes | memoryview]:
    """A message as one frame: buffers to be written one after the other."""
    if isinstance(message, m.Batch):
        head = _batch_head(message)
        size = len(head) + len(message.payload)
        return [size.to_bytes(4, "big") + head, message.payload]
    _check_strings(message)
    body = _encoder.encode(message)
    return [len(body).to_bytes(4, "big") + body]


def _batch_head(batch: m.Batch) -> bytes:
    packer = msgpack.Packer(autoreset=False)
    packer.pack_array_header(_BATCH_FIELDS)
    for number in (BATCH_TAG, batch.seq, batch.run, batch.record_count):
        packer.pack(number)
    # the packer has no header of a bin alone: bin 32
    return packer.bytes() + b"\xc6" + len(batch.payload).to_bytes(4, "big")  # type: ignore[no-any-return]


def _check_strings(message: m.Message) -> None:
    for name in message.__struct_fields__:
        value = getattr(message, name)
        size = len(value.encode()) if isinstance(value, str) else len(value) if isinstance(value, bytes) else 0
        if size > m.MAX_STRING_BYTES:
            raise ProtocolError(Code.MALFORMED, f"{type(message).__name__}.{name} has {size} bytes")


def decode(frame: memoryview) -> m.Message:
    """The message in a frame; a batch's payload is a view of it."""
    tag = _tag(frame)
    if tag == BATCH_TAG:
        return _decode_batch(frame)
    if tag not in _TAGS:
        raise ProtocolError(Code.UNKNOWN_MESSAGE, f"message number {tag}")
    try:
        message: m.Message = _decoder.decode(frame)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise ProtocolError(Code.MALFORMED, f"message {tag} cannot be read") from error
    _check_strings(message)
    return message


def _tag(frame: memoryview) -> int:
    """The message's number, behind the array's header."""
    first = frame[0]
    if 0x90 <= first <= 0x9F:
        at = 1
    elif first == 0xDC:
        at = 3
    else:
        raise ProtocolError(Code.MALFORMED, "not a msgpack array")
    if len(frame) <= at or frame[at] > 0x7F:
        raise ProtocolError(Code.MALFORMED, "no message number")
    return frame[at]


def _decode_batch(frame: memoryview) -> m.Batch:
    fields = frame[0] & 0x0F if frame[0] != 0xDC else int.from_bytes(frame[1:3], "big")
    if fields < _BATCH_FIELDS:
        raise ProtocolError(Code.MALFORMED, "BATCH lacks fields")
    position = 2 if frame[0] != 0xDC else 4
    numbers = []
    for _ in range(3):
        value, position = _unsigned(frame, position)
        numbers.append(value)
    payload, position = _binary(frame, position)
    _skip_rest(frame[position:], fields - _BATCH_FIELDS)
    seq, run, record_count = numbers
    return m.Batch(seq, run, record_count, payload)


_UNSIGNED_BYTES = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}
_BINARY_LENGTH_BYTES = {0xC4: 1, 0xC5: 2, 0xC6: 4}


def _unsigned(frame: memoryview, position: int) -> tuple[int, int]:
    kind = frame[position] if position < len(frame) else 0xC1
    if kind <= 0x7F:
        return kind, position + 1
    size = _UNSIGNED_BYTES.get(kind)
    if size is None or position + 1 + size > len(frame):
        raise ProtocolError(Code.MALFORMED, "BATCH: a number is missing")
    end = position + 1 + size
    value = int.from_bytes(frame[position + 1 : end], "big")
    if value >= 1 << 63:
        raise ProtocolError(Code.MALFORMED, "BATCH: a number is too large")
    return value, end


def _binary(frame: memoryview, position: int) -> tuple[memoryview, int]:
    kind = frame[position] if position < len(frame) else 0xC1
    width = _BINARY_LENGTH_BYTES.get(kind)
    if width is None or position + 1 + width > len(frame):
        raise ProtocolError(Code.MALFORMED, "BATCH: the payload is missing")
    start = position + 1 + width
    end = start + int.from_bytes(frame[position + 1 : start], "big")
    if end > len(frame):
        raise ProtocolError(Code.MALFORMED, "BATCH: the payload is longer than its frame")
    return frame[start:end], end


def _skip_rest(rest: memoryview, fields: int) -> None:
    """Fields of a later version are read over, and must be whole."""
    if fields == 0 and not rest:
        return
    try:
        head = bytes([0xDC]) + fields.to_bytes(2, "big")
        skipped: Sequence[object] = msgspec.msgpack.decode(head + bytes(rest))
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise ProtocolError(Code.MALFORMED, "BATCH: what follows the payload cannot be read") from error
    del skipped
