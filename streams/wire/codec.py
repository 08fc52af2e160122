"""Messages to msgpack and back. A batch's payload is never copied: it is written after its head, and read as a view.

Bytes of any kind are survived: anything but a message of this version raises RemoteProtocolError and nothing else.
Outgoing messages pass the same checks as incoming ones, so a fault of ours is found here (LocalProtocolError) and not
by the peer.
"""

from __future__ import annotations

from typing import Any, get_args

import msgpack
import msgspec

from streams.decoding import MALFORMED
from streams.errors import Code, LocalProtocolError, ProtocolError, RemoteProtocolError
from streams.wire import messages as m

BATCH_TAG = 5
_BATCH_FIELDS = 5  # number, seq, run, record count, payload
_KINDS: tuple[type[m.Message], ...] = get_args(m.Message)
_TAGS = frozenset(kind.__struct_config__.tag for kind in _KINDS)
_TEXTS = {kind: tuple(field.name for field in msgspec.structs.fields(kind) if field.type == m.Text) for kind in _KINDS}
_NUMBER_END = 1 << 63
_BIN_HEADS = {0xC4: 2, 0xC5: 3, 0xC6: 5}
"""Bytes before the data of a bin, by its first."""

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(m.Message)


def encode(message: m.Message) -> list[bytes | memoryview]:
    """A message as one frame: buffers to be written in this order."""
    if isinstance(message, m.Batch):
        return _encode_batch(message)
    try:
        body = _encoder.encode(message)
    except (OverflowError, UnicodeEncodeError) as error:
        raise LocalProtocolError(Code.MALFORMED, f"{type(message).__name__} cannot be encoded") from error
    _decode(body, LocalProtocolError)
    return [len(body).to_bytes(4, "big") + body]


def _encode_batch(batch: m.Batch) -> list[bytes | memoryview]:
    numbers = (batch.seq, batch.run, batch.record_count)
    if not all(0 <= number < _NUMBER_END for number in numbers):
        raise LocalProtocolError(Code.MALFORMED, f"Batch: a number is out of range in {numbers}")
    packer = msgpack.Packer(autoreset=False)
    packer.pack_array_header(_BATCH_FIELDS)
    for number in (BATCH_TAG, *numbers):
        packer.pack(number)
    # the packer cannot write the header of a bin by itself: this is bin 32
    head = packer.bytes() + b"\xc6" + batch.payload.nbytes.to_bytes(4, "big")
    size = len(head) + batch.payload.nbytes
    if size > m.MAX_FRAME_BYTES:
        raise LocalProtocolError(Code.FRAME_TOO_LARGE, f"a batch makes a frame of {size} bytes")
    return [size.to_bytes(4, "big") + head, batch.payload]


def decode(frame: bytes | memoryview) -> m.Message:
    """The message in a frame; a batch's payload is a view of it."""
    return _decode(frame, RemoteProtocolError)


def decode_beginning(head: bytes | memoryview, size: int) -> m.Overlong:
    """The batch that a frame of this size begins as; nothing else may be so long."""
    reader = msgpack.Unpacker()
    reader.feed(bytes(head))
    try:
        fields, (tag, *numbers) = reader.read_array_header(), [reader.unpack() for _ in range(_BATCH_FIELDS - 1)]
        fits = fields >= _BATCH_FIELDS and tag == BATCH_TAG
        if fits and all(type(number) is int and 0 <= number < _NUMBER_END for number in numbers):
            seq, run, record_count = numbers
            end = reader.tell()
            return m.Overlong(seq, run, record_count, size - end - _BIN_HEADS[head[end]])
    except (msgpack.UnpackException, ValueError, LookupError) as error:
        raise RemoteProtocolError(Code.MALFORMED, f"a frame of {size} bytes is not a message") from error
    raise RemoteProtocolError(Code.MALFORMED, f"a frame of {size} bytes is no batch")


def _decode(frame: bytes | memoryview, fault: type[ProtocolError]) -> m.Message:
    try:
        message: m.Message = _decoder.decode(frame)
    except MALFORMED as error:
        if (number := _number(frame)) is not None and number not in _TAGS:
            raise fault(Code.UNKNOWN_MESSAGE, f"message number {number}") from error
        raise fault(Code.MALFORMED, f"message {number} is not valid: {error}") from error
    for name in _TEXTS[type(message)]:  # the decoder counts characters; the limit is in bytes
        size = len(getattr(message, name).encode())
        if size > m.MAX_STRING_BYTES:
            raise fault(Code.MALFORMED, f"{type(message).__name__}.{name} has {size} bytes")
    return message


def _number(frame: bytes | memoryview) -> int | None:
    """The first field, if the frame begins like a message."""
    reader = msgpack.Unpacker()
    reader.feed(bytes(frame[:16]))
    try:
        number = reader.unpack() if reader.read_array_header() else None
    except (msgpack.UnpackException, ValueError):
        return None
    return number if type(number) is int and number >= 0 else None
