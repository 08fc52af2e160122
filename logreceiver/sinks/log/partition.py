"""One partition of the embedded log: opened and repaired, appended to, made durable.

`append` only queues a batch, which is not answered yet; `commit` writes, fsyncs and moves the checkpoint; until then
`roll_back` takes everything since the last commit out again. So the producers' state only covers batches that are
durable, or become durable in the same commit.

Opening decides by the checkpoint, which is never ahead of what was fsynced. Damage after it, in the last segment, is a
torn tail: nothing there was ever acknowledged, and it is cut. Damage before it is set aside in a file of its own and
logged as an error, what follows stays, and its offsets are never used again. In the last segment every byte is checked,
in earlier ones the headers. After an fsync error nothing the kernel holds is trusted: `reopen` cuts to the checkpoint.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from pathlib import Path

import msgspec
import structlog

from logreceiver.sinks.log import files, snapshot
from logreceiver.sinks.log.files import (
    CHECKPOINT,
    FILE_MODE,
    Damaged,
    Placed,
    pack_checkpoint,
    placed,
    segment_name,
)
from logreceiver.sinks.log.producers import Producers, Undo
from logreceiver.sinks.log.retention import Retention, delete_before, trim
from logreceiver.sinks.log.snapshot import SnapshotUnusable
from streams.files import open_own, sync_directory, write_atomically
from streams.records.batch import Header

MAX_OFFSETS_PER_SEGMENT = 2**31 - 1
"""Kafka's indexes store offsets relative to the segment's base offset in 32 bits."""
_BASE_OFFSET_BYTES = 8
_BUFFERS_PER_WRITE = 512
_COPY_BYTES = 1024 * 1024
_sync = getattr(os, "fdatasync", os.fsync)

log = structlog.get_logger("logreceiver.log")


class _Mark(msgspec.Struct, frozen=True):
    """Where the partition stood at the last commit."""

    size: int
    next_offset: int


class Partition:
    """Blocking; used by one thread at a time."""

    def __init__(self, path: Path, *, max_segment_bytes: int) -> None:
        self.path = path
        self.producers = Producers()
        self.broken = False
        """What is on disk is in doubt, so `reopen` must come first."""
        self.has_rolled = False
        """A segment was ended since this was set to False."""
        self._max_segment_bytes = max_segment_bytes
        self._fd = -1
        self._checkpoint_fd = -1
        self._base_offset = 0
        """Of the last segment, to which batches are appended."""
        self._size = 0
        """Of the last segment, with queued batches."""
        self._next_offset = 0
        self._durable = _Mark(0, 0)
        self._queued: list[bytes | memoryview] = []
        self._undo: list[Undo] = []
        """How to take back, newest last, what `append` did to `producers` since the last commit."""

    # -- opening -----------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Read the partition, repair it, and make it durable. OSError if that fails."""
        if not self.path.exists():
            self.path.mkdir(files.DIRECTORY_MODE)
            sync_directory(self.path.parent)
        self.producers = Producers()
        self._next_offset = self._begin()
        found = files.segments(self.path)
        if found and found[0][0] > self._next_offset:
            self._missing(self._next_offset, found[0][0])
        if not found and not (self.path / CHECKPOINT).exists():
            write_atomically(self.path / CHECKPOINT, pack_checkpoint(0), mode=FILE_MODE)
        checkpoint = files.read_checkpoint(self.path)
        if checkpoint is None:
            log.error("checkpoint unusable", partition=self.path.name)  # so nothing is cut: all damage is set aside
        ends = [*(base_offset for base_offset, _ in found[1:]), checkpoint]
        for (base_offset, path), end in zip(found, ends, strict=False):  # one more where there is none
            self._scan(base_offset, path, checkpoint, limit=end, last=path == found[-1][1])
        if checkpoint is not None and self._next_offset < checkpoint:
            self._missing(self._next_offset, checkpoint)
            self._next_offset = checkpoint
        self._open_files(found[-1][0] if found else self._next_offset)
        self._make_durable()
        self.broken = False

    def _begin(self) -> int:
        """The first offset, from which the producers are read on; what is before it is deleted."""
        try:
            begin = snapshot.read(self.path)
        except SnapshotUnusable as error:
            remedy = "batches that were stored before the first segment may be stored again; restore it, or delete it"
            log.error("producer snapshot unusable", partition=self.path.name, reason=str(error), remedy=remedy)
            return 0
        delete_before(self.path, begin.offset)
        self.producers.remember(begin.producers)
        return begin.offset

    def _missing(self, from_offset: int, to_offset: int) -> None:
        log.error(
            "acknowledged batches missing", partition=self.path.name, from_offset=from_offset, to_offset=to_offset
        )

    def _scan(self, base_offset: int, path: Path, checkpoint: int | None, *, limit: int | None, last: bool) -> None:
        """Load the producers from a segment's headers; cut or set aside damaged bytes."""
        self._next_offset = max(self._next_offset, base_offset)
        aside: list[tuple[int, int]] = []
        before: Placed | None = None
        unproven: int | None = None  # where the batches begin that the checkpoint does not cover
        fd = os.open(path, os.O_RDWR)
        try:
            position, end = 0, os.fstat(fd).st_size
            while position < end:
                try:
                    one = placed(fd, position, end, next_offset=self._next_offset, limit=limit, verify=last)
                except Damaged as damage:
                    if not last and before is not None and not files.sound(fd, before):
                        # Its length is wrong, so the next batch is not where it says.
                        position, self._next_offset, before = before.position, before.header.base_offset, None
                    if last and checkpoint is not None and self._next_offset >= checkpoint:
                        self._cut(fd, position, end, str(damage))
                        break
                    sound = files.find_next(fd, position + 1, end, next_offset=self._next_offset, limit=limit)
                    log.error(
                        "damaged batch set aside",
                        partition=self.path.name,
                        segment=path.name,
                        position=position,
                        bytes=sound - position,
                        reason=str(damage),
                    )
                    aside.append((position, sound))
                    position = sound
                    continue
                if last and unproven is None and one.header.base_offset >= (checkpoint or 0):
                    unproven = position
                self.producers.record(one.header, one.header.base_offset)
                position, self._next_offset, before = one.end, one.next_offset, one
            if unproven is not None:
                _rewrite(fd, unproven, position)
        finally:
            os.close(fd)
        if aside:
            _set_aside(path, aside)

    def _cut(self, fd: int, position: int, end: int, reason: str) -> None:
        log.warning(
            "torn tail cut",
            partition=self.path.name,
            position=position,
            bytes=end - position,
            reason=reason,
        )
        os.ftruncate(fd, position)

    def _open_files(self, base_offset: int) -> None:
        self._checkpoint_fd = open_own(self.path / CHECKPOINT, os.O_RDWR)
        self._open_segment(base_offset)

    def _open_segment(self, base_offset: int) -> None:
        path = self.path / segment_name(base_offset)
        fd = open_own(path, os.O_RDWR)
        try:
            size = os.lseek(fd, 0, os.SEEK_END)
            if not size:
                sync_directory(self.path)
        except OSError:
            os.close(fd)
            raise
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._base_offset, self._size = fd, base_offset, size

    def reopen(self) -> None:
        """After an I/O error: drop what was not durable, and read everything again."""
        self._queued, self._undo = [], []
        with contextlib.suppress(OSError):
            self._open_segment(self._base_offset)  # a new file description
        os.ftruncate(self._fd, min(self._durable.size, os.fstat(self._fd).st_size))
        os.fsync(self._fd)
        self.close()
        self.open()

    @property
    def is_awake(self) -> bool:
        """True while its files are open."""
        return self._fd >= 0

    def _wake(self) -> None:
        """Open the files again. OSError if that fails, or if somebody else has changed the segment."""
        self.close()  # whatever an attempt before has left
        with_queued = self._size
        self._open_files(self._base_offset)
        on_disk, self._size = self._size, with_queued
        if on_disk != self._durable.size:
            self.broken = True
            raise OSError(errno.EIO, f"the last segment has {on_disk} bytes, not {self._durable.size}")

    def close(self) -> None:
        """Close the files. What is committed or queued stays known: the next commit opens them again."""
        for fd in (self._fd, self._checkpoint_fd):
            if fd >= 0:
                os.close(fd)
        self._fd = self._checkpoint_fd = -1

    def trim(self, retention: Retention, now: float) -> None:
        """Delete the oldest segments if they are too many or too old at `now` (Unix seconds). OSError."""
        self.has_rolled = False
        if (begin := trim(self.path, retention, now)) is not None:
            kept = {one.producer_id for one in begin.producers}
            self.producers.forget(before_offset=begin.offset, but=kept)

    @property
    def durable_offset(self) -> int:
        """Batches before this offset are fsynced."""
        return self._durable.next_offset

    # -- appending ---------------------------------------------------------------------------------------------

    def append(self, header: Header, batch: memoryview) -> int:
        """Queue a batch for the next commit; returns its base offset. OSError if ending a full segment fails."""
        if self._size and (
            self._size + len(batch) > self._max_segment_bytes
            or self._next_offset + header.record_count - self._base_offset > MAX_OFFSETS_PER_SEGMENT
        ):
            if not self.is_awake:
                self._wake()
            self.commit()
            self._open_segment(self._next_offset)
            self._durable = _Mark(0, self._next_offset)
            self.has_rolled = True
        base_offset = self._next_offset
        self._queued += (base_offset.to_bytes(_BASE_OFFSET_BYTES, "big"), batch[_BASE_OFFSET_BYTES:])
        self._undo.append(self.producers.record(header, base_offset))
        self._size += len(batch)
        self._next_offset += header.record_count
        return base_offset

    def write(self) -> None:
        """Write queued batches to the file. After an OSError, such as a full disk, call `roll_back`."""
        for start in range(0, len(self._queued), _BUFFERS_PER_WRITE):
            _write_all(self._fd, self._queued[start : start + _BUFFERS_PER_WRITE])
        self._queued = []

    def commit(self) -> None:
        """Write and fsync queued batches, and move the checkpoint. OSError: see `write`, unless it is now `broken`."""
        if self._queued and not self.is_awake:
            self._wake()
        self.write()
        if self._durable != _Mark(self._size, self._next_offset):
            self._make_durable()

    def _make_durable(self) -> None:
        self.broken = True  # until it has succeeded
        _sync(self._fd)
        os.pwrite(self._checkpoint_fd, pack_checkpoint(self._next_offset), 0)
        _sync(self._checkpoint_fd)
        self.broken = False
        self._undo = []
        self._durable = _Mark(self._size, self._next_offset)

    def roll_back(self) -> None:
        """Undo everything since the last commit, durably, so that it counts as refused. OSError: it is now `broken`."""
        self.broken = True
        self._queued = []
        for step in reversed(self._undo):
            self.producers.undo(step)
        self._undo = []
        self._size, self._next_offset = self._durable.size, self._durable.next_offset
        if self.is_awake:  # else nothing was written
            os.ftruncate(self._fd, self._size)
            os.lseek(self._fd, 0, os.SEEK_END)
            os.fsync(self._fd)
        self.broken = False


def _write_all(fd: int, buffers: list[bytes | memoryview]) -> None:
    written = os.writev(fd, buffers)
    if written == sum(map(len, buffers)):
        return
    rest = memoryview(b"".join(buffers))[written:]
    while rest:
        rest = rest[os.write(fd, rest) :]


def _rewrite(fd: int, start: int, end: int) -> None:
    """Make pages dirty again: after a failed fsync the kernel marks them clean, and the next fsync would do nothing."""
    for position in range(start, end, _COPY_BYTES):
        data = os.pread(fd, min(_COPY_BYTES, end - position), position)
        while data:
            written = os.pwrite(fd, data, position)
            data, position = data[written:], position + written  # noqa: PLW2901


def _set_aside(path: Path, ranges: list[tuple[int, int]]) -> None:
    """Move byte ranges of a segment into files next to it; the segment is replaced as a whole."""
    fresh = path.with_suffix(".tmp")
    with path.open("rb") as old, open(fresh, "wb", opener=_own) as new:
        at = 0
        for start, end in ranges:
            new.write(old.read(start - at))
            write_atomically(path.with_suffix(f".{start}.damaged"), old.read(end - start), mode=FILE_MODE)
            at = end
        shutil.copyfileobj(old, new)
        new.flush()
        os.fsync(new.fileno())
    fresh.replace(path)
    sync_directory(path.parent)


def _own(path: str, flags: int) -> int:
    return open_own(Path(path), flags)
