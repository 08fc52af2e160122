"""What disks keep, damaged in every way: files of the embedded log, spools, and what both programs note beside them.

Most files are too long to be inputs: an input says where in a sound file which bytes are written, or where it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
from structlog.testing import capture_logs

from logfwd import accepted
from logfwd.sources.file.marks import read_mark
from logfwd.sources.file.scanned import patterns_of
from logfwd.sources.formats.containers import cri
from logfwd.sources.formats.encodings import UTF_8
from logfwd.sources.formats.joined import JoinedLines, Rules, Saved
from logfwd.sources.position import Mark
from logfwd.spool.schema import PAGE_BYTES
from logfwd.spool.store import Spool
from logreceiver import replayed
from logreceiver.sinks import TopicInfo
from logreceiver.sinks.log import files, meta, snapshot
from logreceiver.sinks.log.damage import Skip
from logreceiver.sinks.log.partition import Partition
from logreceiver.sinks.log.producers import Remembered
from logreceiver.sinks.log.read import read_records
from logreceiver.sinks.log.snapshot import Snapshot, SnapshotUnusable
from streams.errors import BatchCorrupt, ConfigError, SpoolCorrupt
from streams.records.batch import Codec, Record, build, parse_header, place, stamp
from tests.fuzz.target import Target
from tests.support.batches import batch, values
from tests.support.spools import accept, backlog_of, balanced, fill, number_of

MEMORY = Path("/dev/shm")
"""What is damaged here need not survive anything, and is written thousands of times."""
BATCHES = 12
TOPIC = "t"
PATCH = struct.Struct(">IB")
"""Where, and 1 if nothing follows; then the bytes that are written there."""


@contextlib.contextmanager
def _directory() -> Iterator[Path]:
    """An empty directory; the log lines about what is damaged in it are not printed."""
    with capture_logs(), tempfile.TemporaryDirectory(prefix="fuzz-", dir=MEMORY if MEMORY.is_dir() else None) as name:
        yield Path(name)


def _patched(whole: bytes, data: bytes) -> bytes:
    if len(data) < PATCH.size:
        return whole[: len(data)]
    at, is_end = PATCH.unpack_from(data)
    at, written = at % (len(whole) + 1), data[PATCH.size :]
    return whole[:at] + written + (b"" if is_end % 2 else whole[at + len(written) :])


def _patches(whole: bytes, step: int, size: int) -> list[bytes]:
    """What is there already, from many places: changed a little, it is what damage makes of it."""
    return [PATCH.pack(at, 0) + whole[at : at + size] for at in range(0, len(whole), step)]


# -- the embedded log ----------------------------------------------------------------------------------------------


@functools.cache
def _segment() -> bytes:
    """Batches back to back, as the log stores them."""
    whole = bytearray()
    for number in range(BATCHES):
        built = build(values(10, 10 * number), timestamp_ms=1_700_000_000_000, codec=Codec.ZSTD)
        stored = stamp(built, producer_id=7, producer_epoch=0, base_sequence=10 * number)
        place(stored, 10 * number)
        whole += stored
    return bytes(whole)


def segment(data: bytes) -> None:
    """A damaged segment is read up to its end, repaired, and appended to; nothing is read that was never written."""
    with _directory() as directory:
        path = directory / f"{TOPIC}-0"
        path.mkdir()
        (path / files.segment_name(0)).write_bytes(_patched(_segment(), data))
        (path / files.CHECKPOINT).write_bytes(files.pack_checkpoint(10 * BATCHES))
        before = _readable(directory)
        partition = Partition(path, max_segment_bytes=1 << 20)
        partition.open()
        try:
            again = batch(8, 0)
            base_offset = partition.append(parse_header(again), again)
            partition.commit()
        finally:
            partition.close()
        assert base_offset >= 10 * BATCHES
        assert _readable(directory) == [*before, *((base_offset + n, b'{"n":%d}' % n) for n in range(10))]


def _readable(directory: Path) -> list[tuple[int, bytes | None]]:
    found: list[Record] = list(read_records(directory, TOPIC, on_damage=Skip()))
    offsets = [record.offset for record in found]
    assert offsets == sorted(set(offsets))
    assert {record.value for record in found} <= {b'{"n":%d}' % number for number in range(10 * BATCHES)}
    return [(record.offset, record.value) for record in found]


def beside_segments(data: bytes) -> None:
    """The files beside segments, and how far a replay has come: read, or named as damaged."""
    with _directory() as directory:
        for name in (meta.META, snapshot.SNAPSHOT, files.CHECKPOINT):
            (directory / name).write_bytes(data)
        with contextlib.suppress(ConfigError):
            meta.topics_in(directory / meta.META)
        with contextlib.suppress(SnapshotUnusable):
            snapshot.read(directory)
        files.read_checkpoint(directory)
        with contextlib.suppress(msgspec.MsgspecError, SnapshotUnusable):
            kept = msgspec.msgpack.decode(data, type=Snapshot)  # as if its checksum were right
            snapshot.write(directory, kept)
            assert snapshot.read(directory) == kept
        _replay(directory, data)


def _replay(directory: Path, data: bytes) -> None:
    target = TopicInfo(TOPIC, "id", 1, 1 << 20)
    with contextlib.suppress(ConfigError), replayed.kept(directory, TOPIC, target, "cluster") as places:
        places.save(0, replayed.Place(1))
        (path,) = (directory / replayed.FOLDER).glob("*.json")
        path.write_bytes(data)
    with contextlib.suppress(ConfigError), replayed.kept(directory, TOPIC, target, "cluster") as places:
        places.of(0)


_REPLAY = b'{"source":"t","target":"t","cluster_id":"c","topic_id":"i","places":{"0":{"offset":1,"producer_id":2}}}'
_BESIDE = [
    b'{"x":' + b"[" * 3000,
    b'{"cluster_id":"c","topics":{"t":{"topic_id":"i","partition_count":1}}}',
    msgspec.msgpack.encode(Snapshot(10, (Remembered(7, 0, 1_700_000_000_000, ()),))),
    msgspec.msgpack.encode([10, [[7, 0, 1_700_000_000_000, [[0, 9, 0], [10, 19, 10]]]]]),
    files.pack_checkpoint(10),
    _REPLAY,
]

# -- spools --------------------------------------------------------------------------------------------------------


@functools.cache
def _spool() -> bytes:
    """A spool of 12 batches, of which two are acknowledged, one is a dead letter and nine wait in a stamped run."""
    with _directory() as directory:
        asyncio.run(fill(directory / "http.spool", batches=BATCHES, padding=20))
        return (directory / "http.spool").read_bytes()


def spool(data: bytes) -> None:
    """A damaged spool is opened, read and written on, at the latest once it is repaired; what it says adds up."""
    with _directory() as directory:
        path = directory / "http.spool"
        path.write_bytes(_patched(_spool(), data))
        asyncio.run(_use(path))


async def _use(path: Path) -> None:
    for _ in range(3):
        try:
            async with Spool(path) as opened:
                backlog = backlog_of(opened)
                for row in backlog.rows:
                    with contextlib.suppress(BatchCorrupt):
                        assert number_of(await opened.payload(row)) in range(BATCHES)
                await accept(opened, 99, backlog)
                assert balanced(backlog)
                return
        except SpoolCorrupt:
            continue
    raise AssertionError("still damaged after three opens")


def notes(data: bytes) -> None:
    """What a forwarder has noted of its files and streams: read, or dropped."""
    patterns_of(Mark(0, detail=data))
    read_mark(Mark(0, detail=data))
    lines = JoinedLines(Rules(cri, None, 1, 1 << 16, 1 << 16), lambda _kind, _count: None)
    lines.restore(data, lambda _offset, length: b"x" * min(length, 100), UTF_8)
    with _directory() as directory:
        (directory / accepted.NAME).write_bytes(data)
        accepted.load(directory)


_OPEN = Saved("stdout", "id", [(10, 60, b"")], 1, False, b"", b'{"a":1}')
_NOTES = [
    b"\x91" * 3000,
    b"[" * 3000,
    msgspec.msgpack.encode(("/var/log/*.log", "/b")),
    msgspec.msgpack.encode([_OPEN]),
    b'["http","app"]',
]

TARGETS = {
    "segments": Target(segment, [*_patches(_segment(), 17, 30), PATCH.pack(300, 1)]),
    "beside-segments": Target(beside_segments, _BESIDE),
    "spools": Target(
        spool,
        [patch for size in (100, 600) for patch in _patches(_spool(), PAGE_BYTES, size)]
        + _patches(_spool()[-3 * PAGE_BYTES :], PAGE_BYTES // 3, 300)
        + [PATCH.pack(3 * PAGE_BYTES, 1)],
    ),
    "notes": Target(notes, _NOTES),
}
