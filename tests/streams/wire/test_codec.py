"""Messages and frames: read by an independent msgpack, cut in every way, and damaged in every way."""

from __future__ import annotations

import re
import struct

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import Code, LocalProtocolError, RemoteProtocolError
from streams.wire import codec
from streams.wire import messages as m
from streams.wire.framing import Deframer

ONE_OF_EACH: list[m.Message] = [
    m.Hello(1, "forwarder", "boot", "http", "hybrid", "original"),
    m.Welcome(1, "session", "cluster", "topic", "id", 1_048_588, 5, 1_700_000_000_000),
    m.OpenRun(3, "topic", 2, 1000, 1, b"grant"),
    m.Run(3, "topic", "id", 2, 1000, b"grant", 1, 41),
    m.Batch(7, 3, 2, memoryview(b"payload bytes")),
    m.Ack(7, 2, 123_456_789_012, 15, 2000),
    m.Nack(-1, "unavailable", True, False, "no leader"),
    m.Report("http", "boot", 10, 9, 1, 0, 0),
    m.Ping(1),
    m.Pong(1),
    m.Goaway("rotation", 5000),
    m.Error("policy", "weaker than the mode"),
]


def frame_of(message: m.Message) -> bytes:
    return b"".join(bytes(part) for part in codec.encode(message))


def read(data: bytes, limit: int = m.MAX_FRAME_BYTES) -> list[m.Message]:
    return [codec.decode(frame) for frame in Deframer(limit).feed(data)]


@pytest.mark.parametrize("message", ONE_OF_EACH, ids=lambda message: type(message).__name__)
def test_a_frame_is_a_length_and_a_msgpack_array_that_begins_with_the_number(message: m.Message) -> None:
    frame = frame_of(message)
    assert struct.unpack(">I", frame[:4]) == (len(frame) - 4,)
    number, *fields = msgpack.unpackb(frame[4:])
    assert number == ONE_OF_EACH.index(message) + 1
    assert fields == [
        bytes(value) if isinstance(value, memoryview) else value
        for value in (getattr(message, name) for name in message.__struct_fields__)
    ]


@pytest.mark.parametrize("cut", ["whole", "byte by byte", "with a tail"])
def test_frames_are_found_however_the_bytes_are_cut(cut: str) -> None:
    data = b"".join(frame_of(message) for message in ONE_OF_EACH)
    deframer = Deframer(m.MAX_FRAME_BYTES)
    pieces = [data] if cut == "whole" else [data[i : i + 1] for i in range(len(data))]
    if cut == "with a tail":
        pieces = [data + b"\x00\x00", b"\x00\x05"]
    found = [codec.decode(frame) for piece in pieces for frame in deframer.feed(piece)]
    assert found == ONE_OF_EACH
    assert deframer.mid_frame is (cut == "with a tail")


def test_a_payload_is_a_view_and_not_a_copy() -> None:
    data = frame_of(m.Batch(0, 1, 1, memoryview(b"x" * 1000)))
    (batch,) = read(data)
    assert isinstance(batch, m.Batch)
    assert batch.payload.obj is data
    payload = memoryview(b"y" * 1000)
    assert codec.encode(m.Batch(0, 1, 1, payload))[1] is payload


def test_a_length_beyond_the_limit_is_refused_before_memory_is_taken() -> None:
    with pytest.raises(RemoteProtocolError) as error:
        read(b"\xff\xff\xff\xff", limit=m.MAX_FRAME_BYTES)
    assert error.value.code is Code.FRAME_TOO_LARGE


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"\x91\x7f", Code.UNKNOWN_MESSAGE),
        (b"\x91\x00", Code.UNKNOWN_MESSAGE),
        (b"\x81\x01\x02", Code.MALFORMED),  # a map
        (b"\x90", Code.MALFORMED),  # no number
        (b"\x91\xcd\x01\x00", Code.UNKNOWN_MESSAGE),  # number 256
        (b"", Code.MALFORMED),
        (b"\xdc\x00", Code.MALFORMED),  # an array's header, cut
        (b"\x92\x09\xff", Code.MALFORMED),  # PING −1
        (b"\x92\x09\xa1x", Code.MALFORMED),  # PING "x"
        (b"\x91\x09", Code.MALFORMED),  # PING without its token
        (b"\x92\x09" + b"\x91" * 50_000, Code.MALFORMED),  # deep nesting
        (b"\x93\x0c\xa2\xff\xfe\xa0", Code.MALFORMED),  # ERROR with text that is not UTF-8
        (b"\x95\x05\x00\x01\x01\xc6\x00\x00\x00\xff", Code.MALFORMED),  # payload longer than its frame
        (b"\x95\x05\x00\x01\x01\xa1x", Code.MALFORMED),  # payload is a string
        (b"\x95\x05\xff\x01\x01\xc4\x00", Code.MALFORMED),  # seq −1
        (b"\x95\x05\xcf\xff\xff\xff\xff\xff\xff\xff\xff\x01\x01\xc4\x00", Code.MALFORMED),  # seq over 63 bits
        (b"\x94\x05\x00\x01\x01", Code.MALFORMED),  # no payload
        (b"\x95\x05\x00\x01\x01\xc4\x00\x00", Code.MALFORMED),  # a byte too many
    ],
)
def test_anything_but_a_message_is_a_protocol_error(body: bytes, code: Code) -> None:
    with pytest.raises(RemoteProtocolError) as error:
        read(len(body).to_bytes(4, "big") + body)
    assert error.value.code is code


def test_fields_of_a_later_version_are_read_over() -> None:
    for message in ONE_OF_EACH:
        values = [getattr(message, name) for name in message.__struct_fields__]
        plain = [bytes(value) if isinstance(value, memoryview) else value for value in values]
        body = msgpack.packb([ONE_OF_EACH.index(message) + 1, *plain, "later", {"deep": [1]}])
        assert read(len(body).to_bytes(4, "big") + body) == [message]


@pytest.mark.parametrize("mutable", [bytearray, lambda data: memoryview(bytearray(data))], ids=["bytearray", "view"])
def test_a_payload_stays_as_it_was_when_the_caller_uses_its_buffer_again(mutable: type[bytearray]) -> None:
    piece = mutable(frame_of(m.Batch(0, 1, 1, memoryview(b"payload"))))
    (frame,) = Deframer(1000).feed(piece)
    batch = codec.decode(frame)
    piece[:] = bytes(len(piece))
    assert isinstance(batch, m.Batch)
    assert bytes(batch.payload) == b"payload"


def test_a_payload_is_read_only_however_its_frame_came() -> None:
    data = frame_of(m.Batch(0, 1, 1, memoryview(b"payload")))
    for pieces in ([data], [data[:9], data[9:]]):
        deframer = Deframer(1000)
        (frame,) = (frame for piece in pieces for frame in deframer.feed(piece))
        batch = codec.decode(frame)
        assert isinstance(batch, m.Batch)
        assert batch.payload.readonly


@pytest.mark.parametrize(
    "message",
    [
        m.Ping(-1),
        m.Ping(1 << 70),
        m.Welcome(1, "session", "cluster", "topic", "id", 1, m.MAX_WINDOW + 1, 0),
        m.OpenRun(1, grant=bytes(256)),
        m.Error("policy", "half a file name \udcff"),
        m.Batch(0, 1, -1, memoryview(b"")),
        m.Batch(1 << 63, 1, 1, memoryview(b"")),
    ],
    ids=lambda message: re.sub("<memory at .*?>", "…", str(message)),
)
def test_what_the_peer_would_refuse_is_not_written(message: m.Message) -> None:
    with pytest.raises(LocalProtocolError) as error:
        codec.encode(message)
    assert error.value.code is Code.MALFORMED


@pytest.mark.parametrize("text", ["x" * 256, "é" * 128])
def test_a_string_over_255_bytes_is_refused_both_ways(text: str) -> None:
    with pytest.raises(LocalProtocolError):
        codec.encode(m.Error("policy", text))
    body = msgpack.packb([12, "policy", text])
    with pytest.raises(RemoteProtocolError):
        read(len(body).to_bytes(4, "big") + body)


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_a_protocol_error(data: bytes) -> None:
    framed = len(data).to_bytes(4, "big") + data
    for candidate in (data, framed):
        try:
            read(candidate, limit=1024)
        except RemoteProtocolError:
            continue


@given(st.sampled_from(ONE_OF_EACH), st.data())
def test_no_damage_to_a_message_raises_anything_but_a_protocol_error(message: m.Message, data: st.DataObject) -> None:
    frame = bytearray(frame_of(message))
    for _ in range(data.draw(st.integers(1, 3))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    try:
        read(bytes(frame), limit=1024)
    except RemoteProtocolError:
        return
