"""Stamped batches for tests of sinks."""

from __future__ import annotations

import time
from collections.abc import Sequence

from streams.records.batch import Codec, OpenBatch, build, compressed, stamp


def values(count: int, first: int = 0) -> list[bytes]:
    return [b'{"n":%d}' % number for number in range(first, first + count)]


def batch(
    producer_id: int,
    base_sequence: int,
    *,
    records: Sequence[bytes] | int = 10,
    producer_epoch: int = 0,
    codec: Codec = Codec.ZSTD,
) -> memoryview:
    """A stamped batch; with a number of records, their values name their sequence."""
    rows = values(records, base_sequence) if isinstance(records, int) else records
    built = build(rows, timestamp_ms=int(time.time() * 1000), codec=codec)
    stamped = stamp(built, producer_id=producer_id, producer_epoch=producer_epoch, base_sequence=base_sequence)
    return memoryview(stamped)


def put(batch: OpenBatch, records: memoryview, count: int) -> None:
    """Add framed records to an open batch."""
    batch.add(compressed(records, batch.codec), count, len(records))
