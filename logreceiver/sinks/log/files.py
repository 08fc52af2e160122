"""Files of the embedded log: names, checkpoints, and finding batches in a segment, damaged or not.

    DIRECTORY/
      lock                              held by the process that owns the directory
      meta.json                         cluster id, topic ids
      producer-ids                      the first producer id that is not set aside to be handed out
      TOPIC-PARTITION/
        00000000000000000000.log        record batches back to back, named by the first offset
        producers.snapshot              where the log begins, if its first segments were deleted (snapshot.py)
        checkpoint                      the offset after the last fsynced batch
        00000000000000000000.4711.damaged   bytes that were set aside: segment, position

A segment holds only Kafka's record batches, so that Kafka's own tools can read it. Offsets grow along a segment and
from one to the next; there is a gap only where a damaged batch was set aside.
"""

from __future__ import annotations

import mmap
import os
import stat
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from streams.config.kinds import check_topic
from streams.errors import BatchCorrupt
from streams.records import batch as recordbatch
from streams.records.batch import HEADER_BYTES, MAGIC, Header

CHECKPOINT = "checkpoint"
_CHECKPOINT = struct.Struct(">qI")
_MAGIC_AT = 16
FILE_MODE, DIRECTORY_MODE = 0o600, 0o700
"""Records are for whoever runs the receiver, whatever the umask is."""
_OTHERS = 0o077


class Placed(NamedTuple):
    """A batch in a segment."""

    position: int
    header: Header

    @property
    def end(self) -> int:
        return self.position + self.header.size

    @property
    def next_offset(self) -> int:
        return self.header.base_offset + self.header.last_offset_delta + 1


class Damaged(Exception):
    """No batch at this position of a segment."""

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(reason)
        self.position = position


def legal_topic(name: str) -> bool:
    """True for a name that Kafka accepts for a topic; such a name is also safe as part of a file's name."""
    try:
        check_topic(name)
    except ValueError:
        return False
    return True


def segment_name(base_offset: int) -> str:
    return f"{base_offset:020d}.log"


def segments(partition: Path) -> list[tuple[int, Path]]:
    """Base offset and path of each segment, in order."""
    found = [path for path in partition.glob("*.log") if len(path.stem) == 20 and path.stem.isdigit()]
    return sorted((int(path.stem), path) for path in found)


def partitions(directory: Path) -> Iterator[tuple[str, int, Path]]:
    """Topic, partition and path of each partition in a log directory."""
    for path in sorted(directory.iterdir()):
        topic, dash, number = path.name.rpartition("-")
        if path.is_dir() and dash and number.isdigit() and legal_topic(topic):
            yield topic, int(number), path


# -- permissions -----------------------------------------------------------------------------------------------


def narrow(directory: Path) -> Iterator[tuple[Path, OSError | None]]:
    """Take the log away from other users: each path that was open to them, and why it still is, if it is."""
    folders = [path for _, _, path in partitions(directory)]
    own = [path for path in directory.iterdir() if path.is_file()]
    for path in (directory, *own, *folders, *(path for folder in folders for path in folder.iterdir())):
        mode = path.lstat().st_mode
        if mode & _OTHERS and not stat.S_ISLNK(mode):
            try:
                path.chmod(stat.S_IMODE(mode) & ~_OTHERS)
            except OSError as error:
                yield path, error
            else:
                yield path, None


# -- checkpoints -----------------------------------------------------------------------------------------------


def pack_checkpoint(next_offset: int) -> bytes:
    return _CHECKPOINT.pack(next_offset, zlib.crc32(next_offset.to_bytes(8, "big", signed=True)))


def read_checkpoint(partition: Path) -> int | None:
    """The offset after the last fsynced batch; None if the checkpoint is unusable."""
    try:
        next_offset, crc = _CHECKPOINT.unpack((partition / CHECKPOINT).read_bytes())
    except (OSError, struct.error):
        return None
    return int(next_offset) if crc == zlib.crc32(next_offset.to_bytes(8, "big", signed=True)) else None


# -- finding batches -------------------------------------------------------------------------------------------


def placed(fd: int, position: int, end: int, *, next_offset: int, limit: int | None, verify: bool) -> Placed:
    """The batch at `position`. Damaged if there is none; its CRC is checked only with `verify`.

    `limit`: the offset where the next segment begins, or the checkpoint: nothing behind a gap reaches over it.
    None if it is not known.
    """
    if position + HEADER_BYTES > end:
        raise Damaged(position, f"{end - position} bytes are too few for a batch header")
    header = recordbatch.parse_header(os.pread(fd, HEADER_BYTES, position))
    fits = (
        header.magic == MAGIC
        and header.size >= HEADER_BYTES
        and position + header.size <= end
        and header.record_count > 0
        and header.last_offset_delta == header.record_count - 1
        and header.base_offset >= next_offset
    )
    if not fits:
        raise Damaged(position, "its header is not that of a whole batch at this place")
    one = Placed(position, header)
    if header.base_offset != next_offset and not (_is_within(one, limit) and _followed(fd, one, end)):
        raise Damaged(
            position, f"its base offset {header.base_offset} fits neither the batch before nor the batch after it"
        )
    if verify:
        try:
            recordbatch.check(os.pread(fd, header.size, position))
        except BatchCorrupt as error:
            raise Damaged(position, str(error)) from error
    return one


def sound(fd: int, one: Placed) -> bool:
    """True if the batch passes every check."""
    try:
        recordbatch.check(os.pread(fd, one.header.size, one.position))
    except BatchCorrupt:
        return False
    return True


def _is_within(one: Placed, limit: int | None) -> bool:
    """False if its offsets cannot be right: the CRC does not cover them, and what follows a leap has to leap, too."""
    return limit is None or one.next_offset <= limit or one.header.base_offset == limit


def _followed(fd: int, one: Placed, end: int) -> bool:
    """True if the next batch continues its offsets, or there is none."""
    if one.end + HEADER_BYTES > end:
        return True
    return recordbatch.parse_header(os.pread(fd, HEADER_BYTES, one.end)).base_offset == one.next_offset


def find_next(fd: int, position: int, end: int, *, next_offset: int, limit: int | None) -> int:
    """The first position at or after `position` where a sound batch begins; `end` if there is none."""
    if end - position < HEADER_BYTES:
        return end
    with mmap.mmap(fd, end, prot=mmap.PROT_READ) as bytes_:
        at = bytes_.find(bytes([MAGIC]), position + _MAGIC_AT)
        while at >= 0:
            try:
                return placed(fd, at - _MAGIC_AT, end, next_offset=next_offset, limit=limit, verify=True).position
            except Damaged:
                at = bytes_.find(bytes([MAGIC]), at + 1)
    return end
