"""`producers.snapshot` of a partition: at which offset its log begins, and what is known of the producers before it.

It is replaced as a whole, and durable, before the first of the segments that it stands for is deleted. So whatever a
kill leaves is one of two: the segments, or what they said about their producers. What is below its offset is no part of
the log any more, even while the file is still there.

    crc32 uint32 (of the rest) · msgpack [offset, [[producer id, epoch, time in ms, [[base sequence, last sequence,
    base offset], …]], …]]
"""

from __future__ import annotations

import zlib
from pathlib import Path

import msgspec

from logreceiver.sinks.log.files import FILE_MODE
from logreceiver.sinks.log.producers import Remembered
from streams.decoding import MALFORMED
from streams.files import write_atomically

SNAPSHOT = "producers.snapshot"
_CRC_BYTES = 4


class Snapshot(msgspec.Struct, frozen=True, array_like=True):
    """The beginning of a partition's log."""

    offset: int = 0
    producers: tuple[Remembered, ...] = ()


class SnapshotUnusable(Exception):
    """The file is there, and damaged: where the log begins is unknown."""


_decode = msgspec.msgpack.Decoder(Snapshot).decode


def read(partition: Path) -> Snapshot:
    """Where the log begins: at 0 as long as nothing was deleted. SnapshotUnusable, OSError."""
    try:
        data = (partition / SNAPSHOT).read_bytes()
    except FileNotFoundError:
        return Snapshot()
    if zlib.crc32(data[_CRC_BYTES:]).to_bytes(_CRC_BYTES, "big") != data[:_CRC_BYTES]:
        raise SnapshotUnusable("its checksum is wrong")
    try:
        return _decode(data[_CRC_BYTES:])
    except MALFORMED as error:
        raise SnapshotUnusable(str(error)) from error


def write(partition: Path, snapshot: Snapshot) -> None:
    """Make this the beginning of the log, durably. OSError."""
    data = msgspec.msgpack.encode(snapshot)
    crc = zlib.crc32(data).to_bytes(_CRC_BYTES, "big")
    write_atomically(partition / SNAPSHOT, crc + data, mode=FILE_MODE)
