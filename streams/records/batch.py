"""Kafka record batch, message format v2 (magic 2): built once at the edge, then only stamped, checked and read.

    baseOffset      int64    0   the sink's; outside the CRC
    batchLength     int32    8   bytes after this field
    leaderEpoch     int32   12   the sink's; outside the CRC
    magic           int8    16   2
    crc             uint32  17   CRC-32C of everything from attributes to the end
    attributes      int16   21   codec in bits 0-2; every other bit is 0 here
    lastOffsetDelta int32   23   record count - 1
    baseTimestamp   int64   27   milliseconds; maxTimestamp int64 35
    producerId      int64   43   producerEpoch int16 51, baseSequence int32 53: the stamp, -1 until then
    recordCount     int32   57
    records                 61   framed records, compressed as a whole if the codec says so

Invariants: a batch that `build` made and that was stored intact passes `check`; no other function gives a batch a
fresh CRC before its old one was verified; bytes of any kind raise nothing but BatchCorrupt. No I/O, no clock.
aiokafka's record code is not used: its builder takes one call per record and a CRC of the data before compression; its
reader trusts lengths that damage can forge.
"""

from __future__ import annotations

import enum
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import zstandard
from crc32c._crc32c import crc32c

from streams.errors import BatchCorrupt
from streams.records.body import NO_HEADERS, BytesLike, frame, halved, rows
from streams.records.decompress import unzstd

HEADER_BYTES = 61
SEQUENCES = 2**31
"""How many sequence numbers there are: 0 follows 2³¹ − 1, as in Kafka."""
NO_PRODUCER = -1
NO_LEADER = -1
MAGIC = 2
ZSTD_LEVEL = 1
ZSTD_WINDOW_LOG = 18
"""A window of 256 KiB stays in a core's cache: 10 % faster than level 1 with its own window, for 2.5 % more bytes."""
MAX_CLOCK_GAP_MS = 3_600_000
"""Timestamps further than this from the stamping clock are moved to it."""
MAX_HALVED_BYTES = 64 * 1024 * 1024
"""The most that `halves` decompresses."""

_HEADER = struct.Struct(">qiibIhiqqqhii")
_OFFSET = struct.Struct(">q")
_CRC = struct.Struct(">I")
_STAMP = struct.Struct(">qqqhi")  # baseTimestamp … baseSequence lie side by side
_CRC_AT, _ATTRIBUTES_AT, _STAMP_AT = 17, 21, 27
_KEEP_LOCK = 0
_BEFORE_LENGTH_BYTES = 12  # what batchLength does not count
_MAX_BATCH_BYTES = 2**31 - 1
_CODEC_MASK = 0x07
_FORBIDDEN = {0x08: "it claims log-append time", 0x10: "it is transactional", 0x20: "it is a control batch"}


class Codec(enum.IntEnum):
    """How the records part is compressed; the numbers are Kafka's."""

    NONE = 0
    ZSTD = 4


class Header(NamedTuple):
    """The 61 bytes before the records, unverified: only `check` vouches for them."""

    base_offset: int
    batch_length: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    record_count: int

    @property
    def codec(self) -> Codec:
        """The batch's codec; BatchCorrupt for one that is not in `Codec`."""
        try:
            return Codec(self.attributes & _CODEC_MASK)
        except ValueError:
            raise BatchCorrupt(f"unknown codec {self.attributes & _CODEC_MASK}") from None

    @property
    def last_sequence(self) -> int:
        """Sequence of the last record; −1 in an unstamped batch."""
        if self.base_sequence < 0:
            return NO_PRODUCER
        return (self.base_sequence + self.last_offset_delta) % SEQUENCES

    @property
    def size(self) -> int:
        """Size of the whole batch in bytes."""
        return self.batch_length + _BEFORE_LENGTH_BYTES


class Record(NamedTuple):
    """One record of a batch, copied out of it."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: bytes = NO_HEADERS
    """The header fields as they are framed; `headers_of` reads them."""


class Packed(NamedTuple):
    """A built batch, and its size before compression."""

    payload: bytes
    record_count: int
    uncompressed_bytes: int


def parse_header(batch: bytes | bytearray | memoryview) -> Header:
    """Read the header; only its length is checked."""
    if len(batch) < HEADER_BYTES:
        raise BatchCorrupt(f"{len(batch)} bytes are too few for a batch header")
    return Header(*_HEADER.unpack_from(batch))


def check(batch: bytes | bytearray | memoryview) -> Header:
    """Run every check that needs no decompression, cheapest first; BatchCorrupt names the first that fails."""
    header = parse_header(batch)
    if header.size != len(batch):
        raise BatchCorrupt(f"the header announces {header.size} bytes, there are {len(batch)}")
    if header.magic != MAGIC:
        raise BatchCorrupt(f"magic is {header.magic}, not {MAGIC}")
    _check_attributes(header)
    if header.record_count <= 0:
        raise BatchCorrupt(f"record count is {header.record_count}")
    if header.last_offset_delta != header.record_count - 1:
        raise BatchCorrupt(f"last offset delta is {header.last_offset_delta} with {header.record_count} records")
    crc = _crc(batch)
    if crc != header.crc:
        raise BatchCorrupt(f"CRC-32C is {crc:08x}, the header says {header.crc:08x}")
    return header


def _check_attributes(header: Header) -> None:
    codec = header.codec
    for bit, text in _FORBIDDEN.items():
        if header.attributes & bit:
            raise BatchCorrupt(text)
    if header.attributes != codec:
        raise BatchCorrupt(f"unknown attribute bits {header.attributes & 0xFFFF:04x}")


def build(values: Sequence[BytesLike], *, timestamp_ms: int, codec: Codec) -> bytes:
    """An unstamped batch of all `values`, each a record without key and headers."""
    if not values:
        raise ValueError("a batch holds at least one record")
    records, count = frame(values, _MAX_BATCH_BYTES - HEADER_BYTES)
    if count != len(values):
        raise ValueError("the values are too large for one batch")
    return pack(records, count, timestamp_ms=timestamp_ms, codec=codec).payload


def pack(records: memoryview, count: int, *, timestamp_ms: int, codec: Codec, newest_ms: int | None = None) -> Packed:
    """An unstamped batch of framed records; without `newest_ms` all have the timestamp of the batch."""
    body, codec = _compress(records, codec)
    newest_ms = timestamp_ms if newest_ms is None else newest_ms
    return Packed(_batch([body], count, codec, timestamp_ms, newest_ms), count, HEADER_BYTES + len(records))


def _batch(body: Sequence[BytesLike], count: int, codec: Codec, timestamp_ms: int, newest_ms: int) -> bytes:
    length = HEADER_BYTES + sum(map(len, body)) - _BEFORE_LENGTH_BYTES
    times = (timestamp_ms, newest_ms)
    unstamped = (NO_PRODUCER, NO_PRODUCER, NO_PRODUCER)
    header = bytearray(_HEADER.pack(0, length, NO_LEADER, MAGIC, 0, codec, count - 1, *times, *unstamped, count))
    crc = crc32c(memoryview(header)[_ATTRIBUTES_AT:], gil_release_mode=_KEEP_LOCK)
    for piece in body:
        crc = crc32c(piece, crc, gil_release_mode=_KEEP_LOCK)
    _CRC.pack_into(header, _CRC_AT, crc)
    return b"".join([header, *body])


class OpenBatch:
    """A batch whose records come in pieces and are compressed at once, so that only what becomes of them is kept.

    Each piece is a zstd frame: one behind the other they are as good as one (RFC 8878 §3), and a piece that is
    compressed by itself takes a fifth less CPU than one that continues a frame. So pieces should not be small.
    """

    def __init__(self, codec: Codec) -> None:
        self.codec, self._pieces = codec, list[BytesLike]()
        self.record_count = self.uncompressed_bytes = self.byte_count = 0
        """`byte_count` are those of the compressed records so far."""

    def add(self, piece: BytesLike, count: int, uncompressed_bytes: int) -> None:
        """Add what `compressed` has made of so many records and bytes; the first one has the offset `record_count`."""
        self._pieces.append(piece)
        self.record_count += count
        self.uncompressed_bytes += uncompressed_bytes
        self.byte_count += len(piece)

    def close(self, timestamp_ms: int) -> Packed:
        """The batch, unstamped; all records have this timestamp."""
        payload = _batch(self._pieces, self.record_count, self.codec, timestamp_ms, timestamp_ms)
        return Packed(payload, self.record_count, HEADER_BYTES + self.uncompressed_bytes)


def compressed(records: memoryview, codec: Codec) -> BytesLike:
    """A piece for an open batch."""
    if codec is Codec.NONE:
        return records
    return bytes(memoryview(_compressor.compress(records)))  # a copy: the original keeps as much room as `records`


class _Compressor(threading.local):
    """Threads must not share a zstd context, and one is expensive enough to keep."""

    def __init__(self) -> None:
        parameters = zstandard.ZstdCompressionParameters.from_level(ZSTD_LEVEL, window_log=ZSTD_WINDOW_LOG)
        self.compress: Callable[[BytesLike], bytes] = zstandard.ZstdCompressor(compression_params=parameters).compress


_compressor = _Compressor()


def _compress(records: memoryview, codec: Codec) -> tuple[bytes | memoryview, Codec]:
    """The records, compressed if that makes them smaller, and their codec."""
    if codec is Codec.ZSTD and len(compressed := _compressor.compress(records)) < len(records):
        return compressed, codec
    return records, Codec.NONE


def _crc(batch: bytes | bytearray | memoryview) -> int:
    """Keeps the interpreter lock: reacquiring it would take longer than the few microseconds of the checksum."""
    return crc32c(memoryview(batch)[_ATTRIBUTES_AT:], gil_release_mode=_KEEP_LOCK)


def stamp(
    batch: bytes | bytearray | memoryview,
    *,
    producer_id: int,
    producer_epoch: int,
    base_sequence: int,
    now_ms: int | None = None,
    known_good: bool = False,
) -> bytearray:
    """A stamped copy. `base_sequence` is unbounded and written modulo 2³¹.

    With `now_ms`, timestamps more than an hour away from it are all moved by the same amount, so that the newest is
    now. BatchCorrupt for a batch whose CRC is wrong: damaged bytes must never get a fresh one. `known_good` skips this
    check for a batch that has not left memory since it was built.
    """
    header = parse_header(batch) if known_good else check(batch)
    shift = 0
    if now_ms is not None and abs(now_ms - header.max_timestamp) > MAX_CLOCK_GAP_MS:
        shift = now_ms - header.max_timestamp
    base_timestamp = header.base_timestamp + shift
    if not _fits_int64(base_timestamp):
        raise BatchCorrupt("its timestamps cannot be moved")
    stamped = bytearray(batch)
    sequence = base_sequence % SEQUENCES
    _STAMP.pack_into(
        stamped, _STAMP_AT, base_timestamp, header.max_timestamp + shift, producer_id, producer_epoch, sequence
    )
    _CRC.pack_into(stamped, _CRC_AT, _crc(stamped))
    return stamped


def _fits_int64(number: int) -> bool:
    return -(2**63) <= number < 2**63


def place(batch: bytearray | memoryview, base_offset: int) -> None:
    """Write the offset of the first record in place; the CRC does not cover it."""
    _OFFSET.pack_into(batch, 0, base_offset)


def iterate(batch: bytes | bytearray | memoryview, *, max_bytes: int) -> Iterator[Record]:
    """The records, one by one. BatchCorrupt for any damage, and for more than `max_bytes` after decompression."""
    header = check(batch)
    for index, row in enumerate(rows(plain(batch, header, max_bytes), header.record_count)):
        if row.offset_delta != index:
            raise BatchCorrupt(f"record {index} has the offset of another")
        timestamp_ms = check_timestamp(header, row.timestamp_delta, record=index)
        yield Record(header.base_offset + index, timestamp_ms, row.key, row.value, row.headers)


def check_timestamp(header: Header, delta: int, *, record: int) -> int:
    """The timestamp of a record in milliseconds; BatchCorrupt for one that is none."""
    timestamp_ms = header.base_timestamp + delta
    if not _fits_int64(timestamp_ms):
        raise BatchCorrupt(f"record {record} has no possible timestamp")
    return timestamp_ms


def halves(batch: bytes | bytearray | memoryview) -> tuple[bytes, bytes] | None:
    """Two unstamped batches with the records of one, for a topic that finds it too large. None for a single record.

    The records are cut as bytes: keys, values, headers and timestamps are kept, and so is the codec.
    """
    header = check(batch)
    if header.record_count == 1:
        return None
    times = [record.timestamp_ms for record in iterate(batch, max_bytes=MAX_HALVED_BYTES)]
    first, second = halved(plain(batch, header, MAX_HALVED_BYTES), header.record_count)
    middle = header.record_count // 2

    def packed(records: bytes, times: list[int]) -> bytes:
        return pack(
            memoryview(records),
            len(times),
            timestamp_ms=header.base_timestamp,
            newest_ms=max(times),
            codec=header.codec,
        ).payload

    return packed(first, times[:middle]), packed(second, times[middle:])


def plain(batch: bytes | bytearray | memoryview, header: Header, max_bytes: int) -> bytes:
    """The records part of a checked batch, decompressed; BatchCorrupt for more than `max_bytes`."""
    body = memoryview(batch)[HEADER_BYTES:]
    records = unzstd(body, max_bytes) if header.codec is Codec.ZSTD else bytes(body)
    if len(records) > max_bytes:
        raise BatchCorrupt(f"{len(records)} bytes of records, {max_bytes} are allowed")
    return records
