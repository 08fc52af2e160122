"""The first records of a batch are those that reading all of it gives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import BatchCorrupt
from streams.records.batch import Codec, OpenBatch, build, iterate
from streams.records.body import frame
from streams.records.glimpse import first_records
from tests.support.batches import put

VALUES = [b'{"n":%d}' % number for number in range(100_000)]


@pytest.mark.parametrize("codec", list(Codec))
@given(
    values=st.lists(st.binary(max_size=300), min_size=1, max_size=30),
    most=st.integers(0, 40),
    max_bytes=st.integers(0, 5000),
)
def test_they_are_the_first_of_all_and_at_least_one(
    codec: Codec, values: list[bytes], most: int, max_bytes: int
) -> None:
    batch = build(values, timestamp_ms=5, codec=codec)
    found = first_records(batch, most, max_bytes)
    assert found == list(iterate(batch, max_bytes=1 << 20))[: len(found)]
    assert min(most, 1) <= len(found) <= most
    if max_bytes > sum(map(len, values)) + 30 * len(values):
        assert len(found) == min(most, len(values))


def test_a_batch_that_was_compressed_in_portions_is_one() -> None:
    portions = OpenBatch(Codec.ZSTD)
    for first in (0, 10, 20):
        records, count = frame(VALUES[first : first + 10], 10_000, first=first)
        put(portions, records, count)
    shown = first_records(portions.close(5).payload, 25, 10_000)
    assert [record.value for record in shown] == VALUES[:25]


def test_no_more_than_asked_for_is_decompressed() -> None:
    batch = build(VALUES, timestamp_ms=5, codec=Codec.ZSTD)
    shown = first_records(batch, 100_000, 10_000)
    assert 400 < len(shown) < 1000
    assert [record.value for record in shown] == VALUES[: len(shown)]


def test_damage_is_named() -> None:
    batch = bytearray(build(VALUES[:100], timestamp_ms=5, codec=Codec.ZSTD))
    batch[-5] ^= 1
    with pytest.raises(BatchCorrupt):
        first_records(bytes(batch), 10, 1000)
