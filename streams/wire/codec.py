"""Messages to msgpack and back. BATCH goes by hand around its payload, so that the payload is never copied.

Any bytes are survived: what is not a message of this version raises ProtocolError and nothing else. What is sent
has passed the same checks as what is received, so that a fault of ours is found here and not by the peer.
"""

from __future__ import annotations

from typing import Any

import msgpack
import msgspec

from streams.errors import Code, ProtocolError
from streams.wire import messages as m

BATCH_TAG = 5
_BATCH_FIELDS = 5  # number, seq, run, record count, payload
_PLAIN = m.Hello | m.Welcome | m.OpenRun | m.Run | m.Ack | m.Nack | m.Report | m.Ping | m.Pong | m.Goaway | m.Error
_TAGS = frozenset(range(1, 13))
_NUMBER_END = 1 << 63
_NOTHING = 0xC1  # the one byte that msgpack never uses

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(_PLAIN)
_batch_decoder = msgspec.msgpack.Decoder(m.Batch)


def encode(message: m.Message) -> list[bytes | memoryview]:
    """A message as one frame: buffers to be written one after the other."""
    if isinstance(message, m.Batch):
        return _encode_batch(message)
    try:
        body = _encoder.encode(message)
    except (OverflowError, UnicodeEncodeError) as error:
        raise ProtocolError(Code.MALFORMED, f"{type(message).__name__} cannot be written") from error
    _decode_plain(body, type(message).__name__)
    return [len(body).to_bytes(4, "big") + body]


def _encode_batch(batch: m.Batch) -> list[bytes | memoryview]:
    numbers = (batch.seq, batch.run, batch.record_count)
    if not all(0 <= number < _NUMBER_END for number in numbers):
        raise ProtocolError(Code.MALFORMED, f"Batch: a number is out of range in {numbers}")
    packer = msgpack.Packer(autoreset=False)
    packer.pack_array_header(_BATCH_FIELDS)
    for number in (BATCH_TAG, *numbers):
        packer.pack(number)
    # the packer cannot write the header of a bin alone: this is bin 32
    head = packer.bytes() + b"\xc6" + batch.payload.nbytes.to_bytes(4, "big")
    size = len(head) + batch.payload.nbytes
    if size > m.MAX_FRAME_BYTES:
        raise ProtocolError(Code.FRAME_TOO_LARGE, f"a batch makes a frame of {size} bytes")
    return [size.to_bytes(4, "big") + head, batch.payload]


def decode(frame: memoryview) -> m.Message:
    """The message in a frame; a batch's payload is a view of it."""
    fields, position = _array(frame)
    tag, position = _unsigned(frame, position)
    if tag == BATCH_TAG:
        return _decode_batch(frame, fields, position)
    if tag not in _TAGS:
        raise ProtocolError(Code.UNKNOWN_MESSAGE, f"message number {tag}")
    return _decode_plain(frame, f"message {tag}")


def _decode_plain(body: bytes | memoryview, what: str) -> m.Message:
    try:
        message: m.Message = _decoder.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise ProtocolError(Code.MALFORMED, f"{what} is not as it must be") from error
    _check_strings(message)
    return message


def _check_strings(message: m.Message) -> None:
    """The decoder counts characters; the limit is in bytes."""
    for name in message.__struct_fields__:
        value = getattr(message, name)
        size = len(value.encode()) if isinstance(value, str) else 0
        if size > m.MAX_STRING_BYTES:
            raise ProtocolError(Code.MALFORMED, f"{type(message).__name__}.{name} has {size} bytes")


def _array(frame: memoryview) -> tuple[int, int]:
    """How many fields the message has, and where the first one is."""
    first = frame[0] if len(frame) else _NOTHING
    if 0x91 <= first <= 0x9F:
        return first & 0x0F, 1
    if first == 0xDC:
        return int.from_bytes(frame[1:3], "big"), 3
    raise ProtocolError(Code.MALFORMED, "not a msgpack array with a message number")


def _decode_batch(frame: memoryview, fields: int, position: int) -> m.Batch:
    if fields < _BATCH_FIELDS:
        raise ProtocolError(Code.MALFORMED, "BATCH lacks fields")
    seq, position = _unsigned(frame, position)
    run, position = _unsigned(frame, position)
    record_count, position = _unsigned(frame, position)
    payload, position = _binary(frame, position)
    if fields > _BATCH_FIELDS:
        _check_later_fields(frame)
    elif position != len(frame):
        raise ProtocolError(Code.MALFORMED, "BATCH: bytes behind its last field")
    return m.Batch(seq, run, record_count, payload)


def _check_later_fields(frame: memoryview) -> None:
    """Fields of a later version must be whole. The typed decoder reads over them and makes no objects of them."""
    try:
        _batch_decoder.decode(frame)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise ProtocolError(Code.MALFORMED, "BATCH: what follows the payload cannot be read") from error


_UNSIGNED_BYTES = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}
_BINARY_LENGTH_BYTES = {0xC4: 1, 0xC5: 2, 0xC6: 4}


def _unsigned(frame: memoryview, position: int) -> tuple[int, int]:
    kind = frame[position] if position < len(frame) else _NOTHING
    if kind <= 0x7F:
        return kind, position + 1
    size = _UNSIGNED_BYTES.get(kind)
    if size is None or position + 1 + size > len(frame):
        raise ProtocolError(Code.MALFORMED, "a number is missing")
    end = position + 1 + size
    value = int.from_bytes(frame[position + 1 : end], "big")
    if value >= _NUMBER_END:
        raise ProtocolError(Code.MALFORMED, "a number is too large")
    return value, end


def _binary(frame: memoryview, position: int) -> tuple[memoryview, int]:
    kind = frame[position] if position < len(frame) else _NOTHING
    width = _BINARY_LENGTH_BYTES.get(kind)
    if width is None or position + 1 + width > len(frame):
        raise ProtocolError(Code.MALFORMED, "BATCH: the payload is missing")
    start = position + 1 + width
    end = start + int.from_bytes(frame[position + 1 : start], "big")
    if end > len(frame):
        raise ProtocolError(Code.MALFORMED, "BATCH: the payload is longer than its frame")
    return frame[start:end], end
