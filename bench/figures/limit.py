"""This machine's own limit: validate, frame and compress in one loop on one thread, nothing else.

The pipeline's speed is reported as a share of this limit, measured in the same run, because absolute figures from a
noisy machine mean little.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import zstandard
from aiokafka.record.default_records import DefaultRecordBatchBuilder

BLOCK_BYTES = 900 * 1024


def blocks(path: Path, *, most_bytes: int) -> Iterator[bytes]:
    """Blocks of whole lines from the beginning of a file."""
    read, rest = 0, b""
    with path.open("rb") as file:
        while read < most_bytes and (data := file.read(BLOCK_BYTES)):
            read += len(data)
            end = data.rfind(b"\n") + 1
            yield rest + data[:end]
            rest = data[end:]


def limit_megabytes_per_second(path: Path, *, most_bytes: int = 200_000_000, compress: bool = True) -> float:
    """MB of input per second through decode_lines, the record-batch builder and, unless disabled, zstd level 1."""
    decoder = msgspec.json.Decoder(msgspec.Raw)
    compressor = zstandard.ZstdCompressor(level=1)
    total, started = 0, time.perf_counter()
    for block in blocks(path, most_bytes=most_bytes):
        builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, len(block) * 2)
        for offset, value in enumerate(decoder.decode_lines(block)):
            builder.append(offset, 1, None, value, [])
        framed = builder.build()
        if compress:
            compressor.compress(framed)
        total += len(block)
    return total / 1e6 / (time.perf_counter() - started)
