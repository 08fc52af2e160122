"""What is fed with random bytes: each target takes any bytes, and raises nothing but the errors that it promises.

A target's seeds are sound inputs, made here, so that the corpus is this file.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import struct
import tempfile
from pathlib import Path

import msgspec
import zstandard
from crc32c import crc32c

from logfwd.config import ForwarderConfig
from logfwd.definition import Stream
from logfwd.sources.file.identity import Place
from logfwd.sources.file.marks import mark_of, read_mark
from logfwd.sources.formats.containers import cri, docker
from logfwd.sources.http.answers import Refused
from logfwd.sources.http.body import body_type, parts
from logfwd.sources.http.coding import decompressed
from logfwd.sources.position import Mark
from logfwd.sources.syslog.framing import Framer
from logfwd.sources.syslog.message import to_json
from logreceiver.config import ReceiverConfig
from logreceiver.ledger.records import decode as decode_entry
from streams.config import toml
from streams.errors import BatchCorrupt, ConfigError, HandshakeFailed, Problem, RemoteProtocolError
from streams.records import batch as recordbatch
from streams.records.batch import Codec
from streams.records.body import Extras, frame, header_fields, key_field
from streams.records.printed import for_terminal, printed
from streams.records.walk import MAX_PLAIN_BYTES, walk
from streams.security import proxied
from streams.wire import codec
from streams.wire import messages as m
from streams.wire.framing import Deframer
from tests.fuzz import disks, handshakes
from tests.fuzz.target import Target, in_pieces
from tests.support.batches import batch

ROOT = Path(__file__).parent.parent.parent
NOW = 1_700_000_000.0
CRC_AT, ATTRIBUTES_AT = 17, 21
LENGTH_BYTES = 4


def frames(data: bytes) -> None:
    """Frames of the wire protocol, from one piece and from many; both give the same messages."""
    found = []
    for pieces in ([data], in_pieces(data)):
        deframer, messages = Deframer(1 << 20), list[str]()
        try:
            for piece in pieces:
                messages += map(_named, deframer.feed(piece))
        except RemoteProtocolError as error:
            messages.append(str(error.code))
        found.append(messages)
    assert found[0] == found[1]


def message(data: bytes) -> None:
    """The body of one frame: a message that is the same once it was encoded again, or an error."""
    with contextlib.suppress(RemoteProtocolError):
        found = codec.decode(data)
        again = b"".join(bytes(part) for part in codec.encode(found))
        assert codec.decode(memoryview(again)[LENGTH_BYTES:]) == found
    with contextlib.suppress(RemoteProtocolError):
        codec.decode_beginning(data, len(data) + (1 << 20))


def _named(frame: memoryview) -> str:
    return type(codec.decode(frame)).__name__


def record_batch(data: bytes) -> None:
    """A batch with these bytes as its records, or as what zstd made of them, is passed exactly if it can be read."""
    for codec_number in (Codec.NONE, Codec.ZSTD):
        whole = bytearray(recordbatch.pack(memoryview(data), 3, timestamp_ms=1, codec=Codec.NONE).payload)
        whole[ATTRIBUTES_AT : ATTRIBUTES_AT + 2] = codec_number.to_bytes(2, "big")
        whole[CRC_AT : CRC_AT + 4] = crc32c(memoryview(whole)[ATTRIBUTES_AT:]).to_bytes(4, "big")
        outcomes = []
        for look in (_walked, _read):
            try:
                look(bytes(whole))
                outcomes.append(True)
            except BatchCorrupt:
                outcomes.append(False)
        assert outcomes[0] == outcomes[1]


def _walked(whole: bytes) -> None:
    walk(memoryview(whole), recordbatch.check(whole))


def _read(whole: bytes) -> None:
    list(recordbatch.iterate(whole, max_bytes=MAX_PLAIN_BYTES))


def syslog_message(data: bytes) -> None:
    """A message becomes a JSON object, or nothing."""
    made = to_json(data, NOW)
    assert made is None or isinstance(msgspec.json.decode(made), dict)


def syslog_stream(data: bytes) -> None:
    """Messages on a connection are the same however it is cut, and within their limit."""
    found = []
    for pieces in ([data], in_pieces(data)):
        framer, messages = Framer(2048), []
        for piece in pieces:
            messages += framer.feed(piece)
        found.append((messages, framer.breach))
        assert all(0 < len(message) <= 2048 or framer.counts_octets for message in messages)
    if not found[0][1]:
        assert found[0] == found[1]


def container_line(data: bytes) -> None:
    """A line of a runtime is taken apart, or is in another format."""
    for parse in (cri, docker):
        piece = parse(data)
        assert piece is None or isinstance(piece.content, bytes)


def proxy_header(data: bytes) -> None:
    """A header names an address, or is refused; never more of it is asked for than one may have."""
    with contextlib.suppress(HandshakeFailed):
        found = proxied.parse(data)
        assert found is not None or len(data) < proxied.MOST_BYTES


def http_body(data: bytes) -> None:
    """Bodies of requests, plain and compressed: parts that follow each other, or a refusal."""
    kinds = ("application/x-ndjson", "application/json", "text/plain; charset=latin-1")
    with contextlib.suppress(Refused):
        for _ in parts(
            data[1:], body_type(kinds[(data[0] if data else 0) % len(kinds)]), block_bytes=512, max_record_bytes=4096
        ):
            pass
    for coding in ("gzip", "deflate", "zstd"):
        size = 0
        with contextlib.suppress(Refused):
            for piece in decompressed(data, coding, 1 << 16):
                size += len(piece)
        assert size <= 1 << 17


def position(data: bytes) -> None:
    """A stored position of a file is read, or dropped."""
    if (mark := Mark.decode(data)) is not None:
        read_mark(mark)


def ledger_record(data: bytes) -> None:
    """A record of the ledger is read, or passed over."""
    decode_entry(data)


def printed_record(data: bytes) -> None:
    """Whatever a record holds, it is one line of JSON, and printable on a terminal."""
    line = printed(data)
    assert b"\n" not in line
    assert for_terminal(line).decode().isprintable()
    assert json.loads(for_terminal(line)) == json.loads(line) or b"\r" in line


def configuration(data: bytes) -> None:
    """A configuration is taken, or every problem is said."""
    path = Path(_directory.name) / "c.toml"
    path.write_bytes(data)
    for kind in (ReceiverConfig, ForwarderConfig, Stream):
        problems: list[Problem] = []
        with contextlib.suppress(ConfigError):
            table = toml.parse(path)
            made = toml.convert(table, kind, path=path, base=path.parent, problems=problems)
            assert made is not None or problems


_directory = tempfile.TemporaryDirectory(prefix="fuzz-")


def _encoded(*messages: m.Message) -> bytes:
    return b"".join(bytes(part) for message in messages for part in codec.encode(message))


_SAID: tuple[tuple[m.Message, ...], ...] = (
    (m.Hello(1, "f", "b", "http", "hybrid"), m.OpenRun(0), m.OpenRun(1, "http", 0, 7, 0, b"grant", 5)),
    (m.Welcome(1, "s", "c", "http", "id", 1 << 20, 4, 5), m.Run(1, "http", "id", 0, 7, b"grant")),
    (m.Batch(1, 1, 3, batch(7, 0, records=3)),),
    (m.Ping(1), m.Pong(2), m.Ack(1, 0, 5, 6, 7), m.Nack(1, "corrupt"), m.Error("policy", "why"), m.Goaway("r", 1)),
    (m.Report("f", "b", 1, 2, 3, 4, 5),),
)
_FRAMES = [
    *(_encoded(*together) for together in _SAID),
    b"\0\0\0\x05" + msgspec.msgpack.encode([1, "x", 2]),
    struct.pack(">I", 1 << 31) + bytes(100),
]
_SYSLOG = (
    b"<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - 'su root' failed for lonvick",
    b'<165>1 2003-10-11T22:14:15.003Z host evntslog - ID47 [example@32473 iut="3" source="A\\"]"] \xef\xbb\xbf',
    b"<34>Oct 11 22:14:15 mymachine su[12]: 'su root' failed",
    b"<13>Feb 29 00:00:00 h a: \xff\xfe",
)
_PROXY = [
    proxied.SIGNATURE + b"\x21\x11\x00\x0c" + bytes(range(12)) + b"rest",
    proxied.SIGNATURE + b"\x21\x21\x00\x24" + bytes(range(36)),
    proxied.SIGNATURE + b"\x20\x00\x00\x00",
]
_PLACE = Place(1, 10, 2, b"t" * 16, 2, b"h" * 16)
_POSITIONS = [Mark(10, 2, b"t" * 16).encode(), mark_of(_PLACE, "/var/log/a.log", "/var/log/a.log", 1).encode()]
_JSON = [b'{"a":1}\n{"b":"\xc3\xa9"}\n', b'[{"a":1},{"b":[1,2,{"c":null}]}]', b'{"message":"x\\u009b"}', b"text\nmore"]

_BODY = bytes(frame([b'{"n":1}', b"x" * 300, b""], 1 << 20, Extras(headers=header_fields([(b"host", b"a")])))[0])
_RECORDS = [
    _BODY,
    bytes(frame([b"1", b"2" * 70, b"3"], 1 << 20, Extras(keys=[key_field(b"k")] * 3))[0]),
    zstandard.ZstdCompressor().compress(_BODY),
    zstandard.ZstdCompressor(write_content_size=False, write_checksum=True).compress(_BODY),
]

TARGETS = {
    "batches": Target(record_batch, _RECORDS),
    "frames": Target(frames, _FRAMES),
    "messages": Target(message, [_encoded(each)[LENGTH_BYTES:] for together in _SAID for each in together]),
    "syslog": Target(syslog_message, _SYSLOG),
    "syslog-stream": Target(
        syslog_stream, [b"".join(b"%d %b" % (len(each), each) for each in _SYSLOG), b"\n".join(_SYSLOG)]
    ),
    "containers": Target(
        container_line,
        [
            b"2016-10-06T00:17:09.669794202Z stdout P the first part",
            b"2016-10-06T00:17:09.669794202Z stderr F ",
            b'{"log":"a line\\n","stream":"stdout","time":"2016-10-06T00:17:09Z","attrs":{"a":"b"}}',
        ],
    ),
    "proxy": Target(proxy_header, _PROXY),
    "http": Target(
        http_body, [*(b"\0" + each for each in _JSON), *(b"\1" + each for each in _JSON), *map(gzip.compress, _JSON)]
    ),
    "positions": Target(position, _POSITIONS),
    "ledger": Target(ledger_record, [b'{"kind":"batch","v":1,"stream":"s"}', b'{"kind":"report","accepted":1}']),
    "printed": Target(printed_record, [*_JSON, b"\xff", b'{"a":"\xe2\x80\xae"}\r']),
    "configuration": Target(
        configuration,
        [(ROOT / "examples" / name).read_bytes() for name in ("logfwd.toml", "logreceiver.toml")]
        + [path.read_bytes() for path in sorted((ROOT / "examples" / "streams.d").glob("*.toml"))],
    ),
    **disks.TARGETS,
    **handshakes.TARGETS,
}
