"""A walk passes a batch exactly if `iterate` reads all of it, whatever is wrong with the batch."""

from __future__ import annotations

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import BatchCorrupt
from streams.records import batch as recordbatch
from streams.records.batch import HEADER_BYTES, Codec
from streams.records.body import (
    MAX_HEADERS,
    NO_EXTRAS,
    Extras,
    Row,
    encoded,
    frame,
    header_fields,
    key_field,
    row_at,
)
from streams.records.walk import MAX_PLAIN_BYTES, MAX_RECORDS, walk
from tests.streams.records.test_batch import NOW_MS, BuiltRow, built_by_aiokafka, rewritten, some_rows, some_values


def passes(batch: bytes) -> bool:
    try:
        walk(memoryview(batch), recordbatch.check(batch))
    except BatchCorrupt:
        return False
    return True


def is_read(batch: bytes) -> bool:
    try:
        list(recordbatch.iterate(batch, max_bytes=MAX_PLAIN_BYTES))
    except BatchCorrupt:
        return False
    return True


def framed(body: bytes | bytearray | memoryview, count: int, codec: Codec = Codec.NONE) -> bytes:
    return recordbatch.pack(memoryview(body), count, timestamp_ms=NOW_MS, codec=codec).payload


@given(some_values, st.sampled_from(list(Codec)), st.none() | st.binary(max_size=200), st.booleans())
def test_what_a_forwarder_builds_passes(values: list[bytes], codec: Codec, key: bytes | None, headers: bool) -> None:
    extras = Extras(
        keys=None if key is None else [key_field(key)] * len(values),
        headers=header_fields([(b"host", b"a")]) if headers else NO_EXTRAS.headers,
    )
    body, count = frame(values, MAX_PLAIN_BYTES, extras)
    assert passes(framed(body, count, codec))


@given(some_rows, st.data())
def test_a_batch_with_changed_bytes_passes_exactly_if_it_is_read(rows: list[BuiltRow], data: st.DataObject) -> None:
    whole = built_by_aiokafka(rows)
    assert passes(whole)
    body = bytearray(whole[HEADER_BYTES:])
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    changed = rewritten(whole, body=bytes(body[: data.draw(st.integers(0, len(body)) | st.just(len(body)))]))
    assert passes(changed) == is_read(changed)


@given(st.lists(st.integers(0, 300), min_size=1, max_size=30), st.data())
def test_records_of_one_form_with_a_changed_byte_pass_exactly_if_they_are_read(
    sizes: list[int], data: st.DataObject
) -> None:
    whole = framed(frame([bytes(size) for size in sizes], MAX_PLAIN_BYTES)[0], len(sizes))
    at = data.draw(st.integers(HEADER_BYTES, len(whole) - 1))
    changed = rewritten(
        whole, body=whole[HEADER_BYTES:at] + data.draw(st.binary(min_size=1, max_size=1)) + whole[at + 1 :]
    )
    assert passes(changed) == is_read(changed)


@pytest.mark.parametrize(
    ("record", "passed"),
    [
        (b"\x0e\0\0\0\1\2x\0", True),
        (b"\x10\0\0\0\1\2x\0\0", False),  # a byte that belongs to no field
        (b"\x0e\0\0\0\3\2x\0", True),  # a key of −2 bytes is none
        (b"\x10\0\0\0\3\2\2x\0", False),  # and then its value is another
        (b"\x0c\0\0\0\1\1\0", True),  # no value
        (b"\x10\0\0\0\1\x82\0x\0", True),  # a length of two bytes where one would do
        (b"\x8e\0\0\0\0\1\2x\0", True),
        (b"\x0e\0\2\0\1\2x\0", True),  # a millisecond later
        (b"\x0e\1\0\0\1\2x\0", True),  # attributes
        (b"\x0f\0\0\0\1\2x\0", False),  # a negative length
    ],
)
def test_a_record_of_another_form_passes_exactly_if_it_is_read(record: bytes, passed: bool) -> None:
    one = framed(record, 1)
    assert (passes(one), is_read(one)) == (passed, passed)


def test_many_records_pass_and_one_wrong_among_them_does_not() -> None:
    count = 1 << 15  # offsets of one, two and three bytes
    body = bytearray(frame([b"x"] * count, MAX_PLAIN_BYTES)[0])
    assert passes(framed(body, count))
    at = body.rindex(b"x") - 3  # in the offset of the last one
    body[at] ^= 2
    with pytest.raises(BatchCorrupt, match=f"record {count - 1} has the offset of another"):
        walk(memoryview(framed(body, count)), recordbatch.parse_header(framed(body, count)))


def refused(match: str, batch: bytes) -> None:
    with pytest.raises(BatchCorrupt, match=match):
        walk(memoryview(batch), recordbatch.check(batch))


def test_what_nobody_can_read_is_refused_with_what_is_wrong() -> None:
    one = framed(frame([b"x"], 100)[0], 1)
    zstd, two = int(Codec.ZSTD), {"record_count": 2, "last_offset_delta": 1}
    refused("do not decompress", rewritten(one, body=b"\xff" * 300, attributes=zstd))
    refused("1000000 are allowed", rewritten(one, record_count=2**31 - 1, last_offset_delta=2**31 - 2))
    refused("records do not fit", rewritten(one, record_count=MAX_RECORDS, last_offset_delta=MAX_RECORDS - 1))
    refused("record 1 has the offset of another", rewritten(one, body=one[HEADER_BYTES:] * 2, **two))
    refused("record 1 is cut short", rewritten(one, body=one[HEADER_BYTES:] + b"\x0e\0\0\2\1\2", **two))
    refused("bytes follow the last record", rewritten(one, body=one[HEADER_BYTES:] + b"more"))
    refused("no possible timestamp", rewritten(one, body=b"\x0e\0\2\0\1\2x\0", base_timestamp=2**63 - 1))
    bomb = zstandard.ZstdCompressor().compress(bytes(MAX_PLAIN_BYTES + 1))
    refused("are allowed", rewritten(one, body=bomb, attributes=zstd))
    refused("are allowed", rewritten(one, body=bytes(MAX_PLAIN_BYTES + 1)))


def test_headers_without_end_are_refused_before_they_are_counted() -> None:
    fields = b"\0\0\0\1\1" + encoded(MAX_HEADERS + 1) + b"\1\1" * (MAX_HEADERS + 1)
    refused("10001 headers", framed(encoded(len(fields)) + fields, 1))


def test_the_fields_that_are_compared_are_those_of_most_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else every record would be taken apart, which takes several times as long."""
    apart = 0

    def counted(body: bytes, at: int) -> tuple[Row, int]:
        nonlocal apart
        apart += 1
        return row_at(body, at)

    monkeypatch.setattr("streams.records.walk.row_at", counted)
    values = [b'{"n":%d}' % number for number in range(1000)]
    extras = Extras(keys=[key_field(b"k")] * 1000, headers=header_fields([(b"host", b"a")]))
    assert passes(framed(frame(values, MAX_PLAIN_BYTES)[0], 1000))
    assert apart == 1
    assert passes(framed(frame(values, MAX_PLAIN_BYTES, extras)[0], 1000))
    assert apart == 2, "the first of each, whose headers are then known"
