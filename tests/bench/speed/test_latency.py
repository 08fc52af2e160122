"""The times at which batches were stored are read from where the sink keeps them."""

from __future__ import annotations

from pathlib import Path

from bench.speed.latency import append_times
from logreceiver.ledger.records import BatchEntry
from streams.records import batch as recordbatch
from streams.records.batch import Codec


def _batch(records: int, timestamp_ms: int) -> bytes:
    return recordbatch.build([b'{"n":1}'] * records, timestamp_ms=timestamp_ms, codec=Codec.ZSTD)


def test_append_times_come_from_the_headers_of_batches_in_order(tmp_path: Path) -> None:
    segment = tmp_path / "00000000000000000000.log"
    segment.write_bytes(_batch(3, 1_000) + _batch(50, 1_017) + _batch(1, 1_500))
    assert list(append_times(segment)) == [(1000.0, 3), (1017.0, 50), (1500.0, 1)]


def test_a_segment_that_ends_within_a_header_gives_its_whole_batches(tmp_path: Path) -> None:
    segment = tmp_path / "00000000000000000000.log"
    segment.write_bytes(_batch(3, 1_000) + _batch(50, 1_017)[:30])
    assert list(append_times(segment)) == [(1000.0, 3)]


def test_the_ledger_has_the_fields_that_are_read() -> None:
    assert {"time_ms", "stream", "records"} <= set(BatchEntry.__struct_fields__)
    assert BatchEntry.__struct_config__.tag == "batch"
