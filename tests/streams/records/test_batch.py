"""Record batches against aiokafka's own reader and builder, both ways, and against every kind of damage."""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import zstandard
from aiokafka.record._crecords import DefaultRecordBatch, DefaultRecordBatchBuilder, MemoryRecords
from aiokafka.record._crecords.cutil import crc32c_cython
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.errors import BatchCorrupt
from streams.records import batch as recordbatch
from streams.records.batch import HEADER_BYTES, Codec, Header, Record
from streams.records.body import Extras, frame, header_fields, headers_of, key_field
from streams.records.decompress import unzstd
from tests.support.batches import put

NOW_MS = 1_700_000_000_000
HOUR_MS = 3_600_000
LIMIT = 1 << 20
CODECS = list(Codec)
OUTSIDE_CRC = {*range(8), *range(12, 16)}  # base offset and leader epoch belong to the sink

some_values = st.lists(st.binary(max_size=200), min_size=1, max_size=30)
some_codec = st.sampled_from(CODECS)
int64 = st.integers(-(2**63), 2**63 - 1)


def compressible(count: int = 20) -> list[bytes]:
    return [b'{"status":200,"path":"/index.html","number":%d}' % number for number in range(count)]


def rewritten(batch: bytes, *, body: bytes | None = None, **fields: int) -> bytes:
    """The batch with other header fields or records part, and with a length and CRC that are right for them."""
    tail = batch[HEADER_BYTES:] if body is None else body
    header = recordbatch.parse_header(batch)._replace(batch_length=HEADER_BYTES - 12 + len(tail))._replace(**fields)
    packed = bytearray(struct.pack(">qiibIhiqqqhii", *header)) + tail
    struct.pack_into(">I", packed, 17, crc32c_cython(packed[21:]))
    return bytes(packed)


def without_codec(batch: bytes) -> bytes:
    """aiokafka needs another library for zstd: what it reads was decompressed here."""
    if recordbatch.parse_header(batch).codec is Codec.NONE:
        return batch
    return rewritten(batch, body=zstandard.ZstdDecompressor().decompress(batch[HEADER_BYTES:]), attributes=0)


def values_of(batch: bytes | bytearray) -> list[bytes | None]:
    return [record.value for record in recordbatch.iterate(batch, max_bytes=LIMIT)]


def corrupted(match: str, batch: bytes) -> None:
    with pytest.raises(BatchCorrupt, match=match):
        recordbatch.check(batch)


@given(some_values, some_codec)
def test_aiokafka_reads_what_was_built(values: list[bytes], codec: Codec) -> None:
    batch = recordbatch.build(values, timestamp_ms=NOW_MS, codec=codec)
    foreign_header = DefaultRecordBatch(batch)
    assert foreign_header.validate_crc()
    assert (foreign_header.producer_id, foreign_header.producer_epoch, foreign_header.base_sequence) == (-1, -1, -1)
    assert foreign_header.first_timestamp == foreign_header.max_timestamp == NOW_MS
    records = MemoryRecords(without_codec(batch))
    read = [(record.offset, record.timestamp, record.key, record.value) for record in records.next_batch()]
    assert read == [(offset, NOW_MS, None, value) for offset, value in enumerate(values)]
    assert not records.has_next()


@pytest.mark.parametrize("count", [1, 63, 64, 65, 8_191, 8_192, 8_193])
def test_records_are_framed_as_aiokafka_frames_them(count: int) -> None:
    values = [bytes((number * 7919) % 300 + 8_000 * (number % 4_001 == 0)) for number in range(count)]
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 24)
    for offset, value in enumerate(values):
        builder.append(offset, NOW_MS, None, value, [])
    assert recordbatch.build(values, timestamp_ms=NOW_MS, codec=Codec.NONE) == bytes(builder.build())


BuiltRow = tuple[int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]
"""Timestamp, key, value, headers."""

some_headers = st.lists(st.tuples(st.text(max_size=5), st.none() | st.binary(max_size=5)), max_size=3)
some_rows = st.lists(
    st.tuples(
        st.integers(0, 2**42), st.none() | st.binary(max_size=20), st.none() | st.binary(max_size=100), some_headers
    ),
    min_size=1,
    max_size=20,
)


def built_by_aiokafka(rows: Sequence[BuiltRow]) -> bytes:
    """An uncompressed, unstamped batch of records with these timestamps, keys, values and headers."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 24)
    for offset, (timestamp, key, value, headers) in enumerate(rows):
        builder.append(offset, timestamp, key, value, headers)
    return bytes(builder.build())


@given(
    st.lists(
        st.tuples(st.none() | st.binary(max_size=200), st.binary(max_size=200), st.binary(max_size=20)), min_size=1
    ),
    some_headers,
    st.booleans(),
    st.sampled_from(["none", "one", "each"]),
)
def test_keys_openings_and_headers_are_framed_as_a_builder_does(
    rows: list[tuple[bytes | None, bytes, bytes]], headers: list[tuple[str, bytes | None]], has_keys: bool, opening: str
) -> None:
    openings = [b"" if opening == "none" else rows[0][2] if opening == "one" else each for _, _, each in rows]
    extras = Extras(
        b"" if opening == "each" else openings[0],
        openings if opening == "each" else None,
        [key_field(key) for key, _, _ in rows] if has_keys else None,
        header_fields([(name.encode(), text) for name, text in headers]),
    )
    framed, count = frame([value for _, value, _ in rows], 1 << 30, extras)
    assert count == len(rows)
    whole: list[BuiltRow] = [
        (NOW_MS, key if has_keys else None, begin + value, headers)
        for (key, value, _), begin in zip(rows, openings, strict=True)
    ]
    assert bytes(framed) == built_by_aiokafka(whole)[HEADER_BYTES:]
    for limit in range(1, len(framed) + 2, max(len(framed) // 7, 1)):
        part, count = frame([value for _, value, _ in rows], limit, extras)
        assert bytes(part) == built_by_aiokafka(whole[:count])[HEADER_BYTES:]
        assert len(part) < limit or count == 1
        assert count == len(rows) or len(built_by_aiokafka(whole[: count + 1])) - HEADER_BYTES >= limit


def test_many_records_with_keys_and_headers_have_right_lengths_and_offsets() -> None:
    count = 20_000  # offsets of one, two and three bytes
    headers: list[tuple[str, bytes | None]] = [("host", b"web-17"), ("empty", b""), ("none", None)]
    rows: list[BuiltRow] = [(NOW_MS, b"%d" % (n % 300) * (n % 40), b"x" * (n % 500), headers) for n in range(count)]
    extras = Extras(
        b"", None, [key_field(row[1]) for row in rows], header_fields([(k.encode(), v) for k, v in headers])
    )
    framed, _ = frame([row[2] or b"" for row in rows], 1 << 30, extras)
    assert bytes(framed) == built_by_aiokafka(rows)[HEADER_BYTES:]


@pytest.mark.parametrize("keyed", [False, True])
def test_as_many_records_are_framed_as_stay_under_a_limit_whatever_their_offsets_take(keyed: bool) -> None:
    values = [b"x" * (n % 90) for n in range(20_000)]
    extras = Extras(b"{", None, [key_field(b"k" * (n % 5)) for n in range(20_000)] if keyed else None)
    whole, _ = frame(values, 1 << 30, extras)
    for number in range(1, 60):  # of one to three bytes
        for limit in {number * 50, number * 500, number * len(whole) // 59, len(whole) + 1}:
            part, count = frame(values, limit, extras)
            assert len(part) < limit or count == 1
            more, _ = frame(values[: count + 1], 1 << 30, extras.part(0, count + 1))
            assert len(more) >= limit or count == len(values)


@given(some_headers)
def test_headers_are_read_back(headers: list[tuple[str, bytes | None]]) -> None:
    pairs = [(name.encode(), text) for name, text in headers]
    assert headers_of(header_fields(pairs)) == pairs


@given(some_rows)
def test_what_aiokafka_builds_passes_the_check_and_is_iterated(
    rows: list[BuiltRow],
) -> None:
    builder = DefaultRecordBatchBuilder(2, 0, 0, 7, 3, 11, 1 << 20)
    for offset, (timestamp, key, value, headers) in enumerate(rows):
        builder.append(offset, timestamp, key, value, headers)
    batch = bytes(builder.build())
    header = recordbatch.check(batch)
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (7, 3, 11)
    assert header.record_count == len(rows)
    assert header.size == len(batch)
    assert list(recordbatch.iterate(batch, max_bytes=LIMIT)) == [
        Record(offset, timestamp, key, value, header_fields([(name.encode(), text) for name, text in headers]))
        for offset, (timestamp, key, value, headers) in enumerate(rows)
    ]


@given(some_values, some_codec)
def test_a_batch_gives_back_its_values(values: list[bytes], codec: Codec) -> None:
    batch = recordbatch.build(values, timestamp_ms=NOW_MS, codec=codec)
    header = recordbatch.check(batch)
    assert (header.record_count, header.last_offset_delta) == (len(values), len(values) - 1)
    assert values_of(batch) == values


def test_values_may_be_any_kind_of_buffer() -> None:
    batch = recordbatch.build([b"a", bytearray(b"b"), memoryview(b"xcx")[1:2]], timestamp_ms=NOW_MS, codec=Codec.NONE)
    assert values_of(batch) == [b"a", b"b", b"c"]


def test_records_that_shrink_are_compressed() -> None:
    plain = recordbatch.build(compressible(), timestamp_ms=NOW_MS, codec=Codec.NONE)
    batch = recordbatch.build(compressible(), timestamp_ms=NOW_MS, codec=Codec.ZSTD)
    assert recordbatch.check(batch).codec is Codec.ZSTD
    assert len(batch) < len(plain) / 2
    assert without_codec(batch) == plain


def test_records_that_do_not_shrink_stay_uncompressed() -> None:
    noise = [os.urandom(300)]
    batch = recordbatch.build(noise, timestamp_ms=NOW_MS, codec=Codec.ZSTD)
    assert recordbatch.check(batch).codec is Codec.NONE
    assert values_of(batch) == noise


def test_threads_build_at_the_same_time() -> None:
    inputs = [[b"%d" % seed * 50] * 2000 for seed in range(4)]
    built: dict[int, list[bytes | None]] = {}

    def work(seed: int) -> None:
        for _ in range(5):
            built[seed] = values_of(recordbatch.build(inputs[seed], timestamp_ms=NOW_MS, codec=Codec.ZSTD))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [built[seed] for seed in range(4)] == inputs


def test_a_batch_needs_at_least_one_value() -> None:
    with pytest.raises(ValueError, match="at least one record"):
        recordbatch.build([], timestamp_ms=NOW_MS, codec=Codec.NONE)


@given(some_values, st.integers(62, 2000))
def test_framed_are_leading_values_up_to_the_limit_and_at_least_one(values: list[bytes], max_bytes: int) -> None:
    records, count = frame(values, max_bytes - HEADER_BYTES)
    packed = recordbatch.pack(records, count, timestamp_ms=NOW_MS, codec=Codec.NONE)
    assert values_of(packed.payload) == values[: packed.record_count]
    assert packed.uncompressed_bytes == len(packed.payload)
    assert packed.record_count == 1 or packed.uncompressed_bytes < max_bytes
    if packed.record_count < len(values):
        more = recordbatch.build(values[: packed.record_count + 1], timestamp_ms=NOW_MS, codec=Codec.NONE)
        assert len(more) >= max_bytes


@pytest.mark.parametrize("codec", CODECS)
def test_every_flipped_bit_is_found_but_those_outside_the_crc(codec: Codec) -> None:
    batch = recordbatch.build([b"a" * 40] * 3, timestamp_ms=NOW_MS, codec=codec)
    assert recordbatch.check(batch).codec is codec
    for place in range(len(batch)):
        for bit in range(8):
            damaged = bytearray(batch)
            damaged[place] ^= 1 << bit
            if place in OUTSIDE_CRC:
                recordbatch.check(damaged)
            else:
                with pytest.raises(BatchCorrupt):
                    recordbatch.check(damaged)


def test_each_check_names_what_is_wrong() -> None:
    batch = recordbatch.build(compressible(2), timestamp_ms=NOW_MS, codec=Codec.NONE)
    corrupted("0 bytes are too few", b"")
    corrupted("60 bytes are too few", batch[:60])
    corrupted(rf"announces {len(batch)} bytes, there are {len(batch) - 1}", batch[:-1])
    corrupted(rf"announces {len(batch)} bytes, there are {len(batch) + 1}", batch + b"\0")
    corrupted("magic is 1", rewritten(batch, magic=1))
    corrupted("unknown codec 1", rewritten(batch, attributes=1))
    corrupted("log-append time", rewritten(batch, attributes=0x08))
    corrupted("transactional", rewritten(batch, attributes=0x10))
    corrupted("control batch", rewritten(batch, attributes=0x20))
    corrupted("attribute bits 0040", rewritten(batch, attributes=0x40))
    corrupted("attribute bits 8000", rewritten(batch, attributes=-0x8000))
    corrupted("record count is 0", rewritten(batch, record_count=0, last_offset_delta=-1))
    corrupted("record count is -5", rewritten(batch, record_count=-5))
    corrupted("last offset delta is 2 with 2 records", rewritten(batch, last_offset_delta=2))
    corrupted("CRC-32C is", batch[:-1] + b"\1")


def test_checks_come_in_the_order_of_the_protocol() -> None:
    batch = recordbatch.build([b"x"], timestamp_ms=NOW_MS, codec=Codec.NONE)
    wrong = [
        ("batch_length", 1, "announces"),
        ("magic", 1, "magic"),
        ("attributes", 0x31, "unknown codec"),
        ("attributes", 0x30, "transactional"),
        ("attributes", 0x20, "control"),
        ("record_count", 0, "record count"),
        ("last_offset_delta", 5, "last offset delta"),
    ]
    for first in range(len(wrong)):
        fields: dict[str, Any] = {field: value for field, value, _ in reversed(wrong[first:])}
        corrupted(wrong[first][2], rewritten(batch, **fields)[:-1] + b"\xff")  # and always a wrong CRC
    corrupted("CRC-32C", batch[:-1] + b"\xff")


@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda tail: b"\0" * 16 + b"\2" + tail))
def test_no_bytes_raise_anything_but_batch_corrupt(data: bytes) -> None:
    def only_iterate(data: bytes) -> object:
        return list(recordbatch.iterate(data, max_bytes=LIMIT))

    def only_stamp(data: bytes) -> object:
        return recordbatch.stamp(data, producer_id=1, producer_epoch=0, base_sequence=0)

    readers: list[Callable[[bytes], object]] = [recordbatch.check, only_iterate, only_stamp, recordbatch.halves]
    for reader in readers:
        with pytest.raises(BatchCorrupt):
            reader(data)


@settings(max_examples=300)
@given(st.binary(max_size=80), some_codec, st.integers(1, 2**31 - 1) | st.integers(1, 5), int64)
def test_records_damaged_under_a_right_crc_raise_batch_corrupt_or_are_read(
    body: bytes, codec: Codec, count: int, timestamp: int
) -> None:
    if codec is Codec.ZSTD and body[:1] < b"\x80":
        body = zstandard.ZstdCompressor().compress(body)
    shell = recordbatch.build([b"x"], timestamp_ms=NOW_MS, codec=Codec.NONE)
    batch = rewritten(
        shell,
        body=body,
        attributes=codec,
        record_count=count,
        last_offset_delta=count - 1,
        base_timestamp=timestamp,
        max_timestamp=timestamp,
    )
    recordbatch.check(batch)
    try:
        records = list(recordbatch.iterate(batch, max_bytes=LIMIT))
    except BatchCorrupt:
        return
    assert len(records) == count


@settings(max_examples=300)
@given(some_values, st.data())
def test_a_record_with_one_changed_byte_raises_batch_corrupt_or_is_read(
    values: list[bytes], data: st.DataObject
) -> None:
    batch = recordbatch.build(values, timestamp_ms=NOW_MS, codec=Codec.NONE)
    body = bytearray(batch[HEADER_BYTES:])
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        records = list(recordbatch.iterate(rewritten(batch, body=bytes(body)), max_bytes=LIMIT))
    except BatchCorrupt:
        return
    assert [record.offset for record in records] == list(range(len(values)))


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (b"", "record 0 is cut short"),
        (b"\x0c\0\0\0\1\1\0", "record 1 is cut short"),
        (b"\x0c\0\0\0\1\1\0" + b"\x0c\0\0\2\1\1\0" * 2, "7 bytes follow"),
        (b"\x0c\0\0\2\1\1\0" * 2, "record 0 has the offset of another"),
        (b"\x0e\0\0\0\1\1\0" * 2, "length is not that of its fields"),
        (b"\x0c\0\0\0\1\1\1", "length is not that of its fields"),
        (b"\x0c\0\0\0\1\1" + b"\xff" * 10, "more than 64 bits"),
        (b"\x1a\0\0\0\1\1\2\0\x0aab", "record 0 is cut short"),  # in the value of a record header
        (b"\x0c\0\0\0" + b"\xfe" * 9 + b"\1", "record 0 is cut short"),
    ],
)
def test_the_error_of_a_damaged_record_names_the_damage(body: bytes, match: str) -> None:
    shell = recordbatch.build([b"x"], timestamp_ms=NOW_MS, codec=Codec.NONE)
    with pytest.raises(BatchCorrupt, match=match):
        list(recordbatch.iterate(rewritten(shell, body=body, record_count=2, last_offset_delta=1), max_bytes=LIMIT))


def test_a_timestamp_beyond_64_bits_is_damage() -> None:
    shell = recordbatch.build([b"x"], timestamp_ms=NOW_MS, codec=Codec.NONE)
    body = b"\x0c\0\2\0\1\1\0"  # one millisecond after the batch's first
    batch = rewritten(shell, body=body, base_timestamp=2**63 - 1)
    with pytest.raises(BatchCorrupt, match="no possible timestamp"):
        list(recordbatch.iterate(batch, max_bytes=LIMIT))


@pytest.mark.parametrize("announced", [True, False], ids=["size-announced", "size-hidden"])
def test_a_zip_bomb_is_refused_before_it_takes_memory(announced: bool) -> None:
    bomb = zstandard.ZstdCompressor(write_content_size=announced).compress(bytes(LIMIT + 1))
    assert len(bomb) < 1000
    shell = recordbatch.build([b"x"], timestamp_ms=NOW_MS, codec=Codec.NONE)
    batch = rewritten(shell, body=bomb, attributes=Codec.ZSTD)
    with pytest.raises(BatchCorrupt, match=str(LIMIT)):
        list(recordbatch.iterate(batch, max_bytes=LIMIT))


def test_a_frame_that_announces_a_pebibyte_is_refused_before_it_takes_memory() -> None:
    frame = b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 2**50)  # RFC 8878 §3.1.1: eight bytes of content size
    shell = recordbatch.build([b"x"], timestamp_ms=NOW_MS, codec=Codec.NONE)
    with pytest.raises(BatchCorrupt, match=str(2**50)):
        values_of(rewritten(shell, body=frame, attributes=Codec.ZSTD))


@pytest.mark.parametrize("codec", CODECS)
def test_the_limit_of_iterate_is_exact(codec: Codec) -> None:
    values = compressible()
    batch = recordbatch.build(values, timestamp_ms=NOW_MS, codec=codec)
    plain_bytes = len(without_codec(batch)) - HEADER_BYTES
    assert len(list(recordbatch.iterate(batch, max_bytes=plain_bytes))) == len(values)
    with pytest.raises(BatchCorrupt, match="are allowed"):
        list(recordbatch.iterate(batch, max_bytes=plain_bytes - 1))


def test_a_frame_of_unknown_size_is_read_within_the_limit() -> None:
    plain = recordbatch.build(compressible(), timestamp_ms=NOW_MS, codec=Codec.NONE)
    body = zstandard.ZstdCompressor(write_content_size=False).compress(plain[HEADER_BYTES:])
    assert values_of(rewritten(plain, body=body, attributes=Codec.ZSTD)) == compressible()


def test_a_frame_that_needs_a_window_over_8_mib_is_damage() -> None:
    for window_log, refused in ((23, False), (24, True)):
        parameters = zstandard.ZstdCompressionParameters(window_log=window_log)
        compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        whole = compressor.compress(b"x" * 100) + compressor.flush()  # of unknown size: the window is what it announces
        if refused:
            with pytest.raises(BatchCorrupt, match="too much memory"):
                unzstd(memoryview(whole), 1000)
        else:
            assert unzstd(memoryview(whole), 1000) == b"x" * 100


def test_bytes_after_the_compressed_frame_are_damage() -> None:
    batch = recordbatch.build(compressible(), timestamp_ms=NOW_MS, codec=Codec.ZSTD)
    with pytest.raises(BatchCorrupt, match="4 bytes of its records do not decompress: they are no zstd frame"):
        values_of(rewritten(batch, body=batch[HEADER_BYTES:] + b"more"))


@given(
    st.lists(st.binary(max_size=600) | st.just(bytes(300_000)), min_size=1, max_size=3),
    st.booleans(),
    st.booleans(),
    st.data(),
)
def test_frames_decompress_exactly_if_they_are_whole_and_alone(
    contents: list[bytes], has_size: bool, has_checksum: bool, data: st.DataObject
) -> None:
    compressor = zstandard.ZstdCompressor(write_content_size=has_size, write_checksum=has_checksum)
    whole = bytearray(b"".join(map(compressor.compress, contents)))
    for _ in range(data.draw(st.integers(0, 2))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    frames = bytes(whole[: data.draw(st.just(len(whole)) | st.integers(0, len(whole)))]) + data.draw(
        st.binary(max_size=3)
    )
    limit = data.draw(st.just(sum(map(len, contents))) | st.integers(0, 1_000_000))
    expected = _decompressed(frames)
    try:
        found: bytes | None = unzstd(memoryview(frames), limit)
    except BatchCorrupt:
        found = None
    assert found == (None if expected is None or len(expected) > limit else expected)


def _decompressed(frames: bytes) -> bytes | None:
    """One frame after the other, by the library's own means; None unless all are whole."""
    found, rest = b"", frames
    while rest or not found:
        decompressor = zstandard.ZstdDecompressor(max_window_size=2**23).decompressobj()
        try:
            found += decompressor.decompress(rest)
        except zstandard.ZstdError:
            return None
        if not decompressor.eof:
            return None
        rest = decompressor.unused_data
        if not rest:
            return found
    return None


def test_a_frame_that_readers_skip_is_no_frame_of_ours() -> None:
    batch = recordbatch.build(compressible(), timestamp_ms=NOW_MS, codec=Codec.ZSTD)
    skipped = b"\x50\x2a\x4d\x18" + struct.pack("<I", 4) + b"more"  # RFC 8878 §3.1.2
    with pytest.raises(BatchCorrupt, match="no zstd frame"):
        values_of(rewritten(batch, body=batch[HEADER_BYTES:] + skipped))


@given(some_values, some_codec, st.integers(0, 2**63 - 1), st.integers(0, 2**15 - 1), st.integers(0, 2**70))
def test_stamping_changes_the_stamp_and_nothing_else(
    values: list[bytes], codec: Codec, producer_id: int, producer_epoch: int, base_sequence: int
) -> None:
    batch = recordbatch.build(values, timestamp_ms=NOW_MS, codec=codec)
    before = recordbatch.parse_header(batch)
    stamped = recordbatch.stamp(
        batch, producer_id=producer_id, producer_epoch=producer_epoch, base_sequence=base_sequence
    )
    header = recordbatch.check(stamped)
    assert header == before._replace(
        crc=header.crc,
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        base_sequence=base_sequence % 2**31,
    )
    assert stamped[HEADER_BYTES:] == batch[HEADER_BYTES:]
    assert DefaultRecordBatch(bytes(stamped)).validate_crc()
    assert values_of(stamped) == values


def test_stamping_again_replaces_the_stamp() -> None:
    batch = recordbatch.build([b"x"], timestamp_ms=NOW_MS, codec=Codec.NONE)
    once = recordbatch.stamp(batch, producer_id=1, producer_epoch=2, base_sequence=3)
    assert recordbatch.stamp(once, producer_id=4, producer_epoch=5, base_sequence=6) == recordbatch.stamp(
        batch, producer_id=4, producer_epoch=5, base_sequence=6
    )


def test_a_rotten_batch_never_gets_a_fresh_crc() -> None:
    batch = bytearray(recordbatch.build(compressible(), timestamp_ms=NOW_MS, codec=Codec.ZSTD))
    batch[-1] ^= 1
    with pytest.raises(BatchCorrupt, match="CRC-32C"):
        recordbatch.stamp(batch, producer_id=1, producer_epoch=0, base_sequence=0)
    with pytest.raises(BatchCorrupt, match="CRC-32C"):
        recordbatch.halves(batch)


@pytest.mark.parametrize(
    ("gap_ms", "moved"), [(0, False), (HOUR_MS, False), (-HOUR_MS, False), (HOUR_MS + 1, True), (-HOUR_MS - 1, True)]
)
def test_timestamps_over_an_hour_away_are_moved_alike(gap_ms: int, moved: bool) -> None:
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 20)
    builder.append(0, NOW_MS - 500, None, b"early", [])
    builder.append(1, NOW_MS, None, b"late", [])
    clock_ms = NOW_MS + gap_ms
    stamped = recordbatch.stamp(builder.build(), producer_id=1, producer_epoch=0, base_sequence=0, now_ms=clock_ms)
    newest_ms = clock_ms if moved else NOW_MS
    header = recordbatch.check(stamped)
    assert (header.base_timestamp, header.max_timestamp) == (newest_ms - 500, newest_ms)
    read = [record.timestamp_ms for record in recordbatch.iterate(stamped, max_bytes=LIMIT)]
    assert read == [newest_ms - 500, newest_ms]


def test_timestamps_that_cannot_be_moved_are_damage() -> None:
    batch = recordbatch.build([b"x"], timestamp_ms=NOW_MS, codec=Codec.NONE)
    with pytest.raises(BatchCorrupt, match="cannot be moved"):
        recordbatch.stamp(
            rewritten(batch, base_timestamp=2**63 - 1, max_timestamp=0),
            producer_id=1,
            producer_epoch=0,
            base_sequence=0,
            now_ms=NOW_MS,
        )


@pytest.mark.parametrize(
    ("base_sequence", "stamped_as", "last"),
    [
        (0, 0, 9),
        (2**31 - 10, 2**31 - 10, 2**31 - 1),
        (2**31 - 9, 2**31 - 9, 0),
        (2**31 - 1, 2**31 - 1, 8),
        (2**31, 0, 9),
        (2**40 + 5, 5, 14),
    ],
)
def test_sequences_wrap_after_their_highest_value(base_sequence: int, stamped_as: int, last: int) -> None:
    batch = recordbatch.build([b"x"] * 10, timestamp_ms=NOW_MS, codec=Codec.NONE)
    header = recordbatch.check(recordbatch.stamp(batch, producer_id=1, producer_epoch=0, base_sequence=base_sequence))
    assert (header.base_sequence, header.last_sequence) == (stamped_as, last)


def test_an_unstamped_batch_has_no_last_sequence() -> None:
    batch = recordbatch.build([b"x"] * 10, timestamp_ms=NOW_MS, codec=Codec.NONE)
    assert recordbatch.parse_header(batch).last_sequence == -1


@given(st.integers(0, 2**63 - 1), some_codec)
def test_placing_sets_the_offsets_and_leaves_the_crc_right(base_offset: int, codec: Codec) -> None:
    batch = bytearray(recordbatch.build(compressible(3), timestamp_ms=NOW_MS, codec=codec))
    recordbatch.place(memoryview(batch), base_offset)
    assert recordbatch.check(batch).base_offset == base_offset
    assert DefaultRecordBatch(bytes(batch)).base_offset == base_offset
    offsets = [record.offset for record in recordbatch.iterate(batch, max_bytes=LIMIT)]
    assert offsets == [base_offset, base_offset + 1, base_offset + 2]


some_batch = some_rows.filter(lambda rows: len(rows) > 1)


@given(some_batch)
def test_halves_are_byte_by_byte_what_a_builder_makes_of_half_of_the_records(rows: list[BuiltRow]) -> None:
    rows = [
        (NOW_MS, key, value, headers) for _, key, value, headers in rows
    ]  # as all of our batches, they have one time
    parts = recordbatch.halves(built_by_aiokafka(rows))
    middle = len(rows) // 2
    assert parts == (built_by_aiokafka(rows[:middle]), built_by_aiokafka(rows[middle:]))


@given(some_batch, some_codec)
def test_halves_keep_keys_values_headers_and_times(rows: list[BuiltRow], codec: Codec) -> None:
    built = built_by_aiokafka(rows)
    plain = memoryview(built)[HEADER_BYTES:]
    newest_ms = max(row[0] for row in rows)
    packed = recordbatch.pack(plain, len(rows), timestamp_ms=rows[0][0], newest_ms=newest_ms, codec=codec).payload
    parts = recordbatch.halves(packed)
    assert parts is not None
    read = [record for part in parts for record in recordbatch.iterate(part, max_bytes=LIMIT)]
    assert [each._replace(offset=0) for each in read] == [
        each._replace(offset=0) for each in recordbatch.iterate(built, max_bytes=LIMIT)
    ]
    for part in parts:
        header = recordbatch.check(part)
        assert header.base_timestamp == rows[0][0]
        times = [record.timestamp for record in DefaultRecordBatch(without_codec(part))]
        assert header.max_timestamp == max(times)


def test_halves_of_many_records_have_right_lengths_and_offsets() -> None:
    rows: list[BuiltRow] = [(NOW_MS, b"%d" % n, b"x" * (n % 200), [("n", b"%d" % n)]) for n in range(20_000)]
    assert recordbatch.halves(built_by_aiokafka(rows)) == (
        built_by_aiokafka(rows[:10_000]),
        built_by_aiokafka(rows[10_000:]),
    )


@given(st.lists(st.binary(max_size=200), min_size=2, max_size=30), some_codec)
def test_halves_hold_the_same_records_in_order(values: list[bytes], codec: Codec) -> None:
    batch = recordbatch.build(values, timestamp_ms=NOW_MS, codec=codec)
    parts = recordbatch.halves(recordbatch.stamp(batch, producer_id=9, producer_epoch=1, base_sequence=77))
    assert parts is not None
    headers = [recordbatch.check(part) for part in parts]
    assert [header.record_count for header in headers] == [len(values) // 2, len(values) - len(values) // 2]
    assert all((h.producer_id, h.producer_epoch, h.base_sequence) == (-1, -1, -1) for h in headers)
    assert all(h.base_timestamp == h.max_timestamp == NOW_MS for h in headers)
    assert values_of(parts[0]) + values_of(parts[1]) == values


def test_halves_keep_the_codec() -> None:
    parts = recordbatch.halves(recordbatch.build(compressible(100), timestamp_ms=NOW_MS, codec=Codec.ZSTD))
    assert parts is not None
    assert [recordbatch.check(part).codec for part in parts] == [Codec.ZSTD, Codec.ZSTD]


def test_a_single_record_has_no_halves() -> None:
    assert recordbatch.halves(recordbatch.build([b"x"], timestamp_ms=NOW_MS, codec=Codec.NONE)) is None


def test_an_unchecked_header_with_an_unknown_codec_has_none() -> None:
    header = Header(*([0] * 13))._replace(attributes=3)
    with pytest.raises(BatchCorrupt, match="unknown codec 3"):
        _ = header.codec


def test_the_crc_is_castagnoli_s() -> None:
    assert crc32c_cython(b"123456789") == 0xE3069283  # the check value of RFC 3720's CRC-32C


# -- records that come in pieces -------------------------------------------------------------------------------------


@given(st.lists(some_values, min_size=1, max_size=5), some_codec)
def test_a_batch_of_pieces_is_what_aiokafka_reads_too(pieces: list[list[bytes]], codec: Codec) -> None:
    batch = recordbatch.OpenBatch(codec)
    for values in pieces:
        put(batch, *frame(values, LIMIT, first=batch.record_count))
    packed = batch.close(NOW_MS)
    assert recordbatch.check(packed.payload).codec is codec
    expected = [value for values in pieces for value in values]
    assert packed.record_count == len(expected)
    found = list(recordbatch.iterate(packed.payload, max_bytes=LIMIT))
    assert [(each.offset, each.timestamp_ms, each.value) for each in found] == [
        (number, NOW_MS, value) for number, value in enumerate(expected)
    ]
    plain = recordbatch.plain(packed.payload, recordbatch.parse_header(packed.payload), LIMIT)
    assert packed.uncompressed_bytes == HEADER_BYTES + len(plain)
    reader = MemoryRecords(rewritten(packed.payload, body=plain, attributes=0)).next_batch()
    assert [record.value for record in reader] == expected


@pytest.mark.parametrize("first", [0, 1, 62, 63, 64, 65, 8191, 8192, 8193])
def test_records_of_a_later_piece_have_the_offsets_that_follow(first: int) -> None:
    values, extras = [b"%d" % n for n in range(100)], Extras(keys=[key_field(b"k")] * 100)
    batch = recordbatch.OpenBatch(Codec.ZSTD)
    if first:
        put(batch, *frame([b"x"] * first, LIMIT))
    records, count = frame(values, LIMIT, extras, first)
    assert count == len(values)
    put(batch, records, count)
    found = list(recordbatch.iterate(batch.close(NOW_MS).payload, max_bytes=LIMIT))[first:]
    assert [(each.offset, each.key, each.value) for each in found] == [(first + n, b"k", b"%d" % n) for n in range(100)]
    most = len(records) // 2
    half, count = frame(values, most, extras, first)
    assert most - 20 < len(half) < most, "as many as fit"
    assert records[: len(half)] == half


def test_open_batches_do_not_disturb_each_other() -> None:
    batches = [recordbatch.OpenBatch(Codec.ZSTD) for _ in range(3)]
    for number in range(4):
        for index, batch in enumerate(batches):
            put(batch, *frame([b"%d of %d" % (number, index)] * 50, LIMIT, first=batch.record_count))
    for index, batch in enumerate(batches):
        expected = [b"%d of %d" % (number, index) for number in range(4) for _ in range(50)]
        assert values_of(batch.close(NOW_MS).payload) == expected


def test_halves_of_a_batch_of_pieces_are_its_records() -> None:
    batch = recordbatch.OpenBatch(Codec.ZSTD)
    for _ in range(2):
        put(batch, *frame(compressible(), LIMIT, first=batch.record_count))
    halves = recordbatch.halves(batch.close(NOW_MS).payload)
    assert halves is not None
    assert [value for half in halves for value in values_of(half)] == compressible() * 2
