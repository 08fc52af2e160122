"""How far a replay has come, kept in the log's directory, so that a replay that is begun again copies each record once.

    replays/NAME.json    one for each topic of the log and each target, 0600; NAME comes from both

Of each partition it holds which batch is next, and the producer and sequence that it gets. While batches may be under
way the target is asked what it has of that producer, and what is stored is passed over; after a replay that came to its
end nothing is, and the next one goes on under a new producer. A target that was created anew gets a file of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from logreceiver.sinks import TopicInfo
from logreceiver.sinks.log.files import DIRECTORY_MODE, FILE_MODE
from streams.decoding import MALFORMED
from streams.errors import ConfigError, Problem
from streams.files import open_own, write_atomically

SAVE_SECONDS = 0.5
FOLDER = "replays"


class Place(msgspec.Struct, frozen=True):
    """The next batch of a partition."""

    offset: int = 0
    """Everything before it is stored."""
    target_partition: int = -1
    producer_id: int = -1
    sequence: int = 0
    """Counts on without wrapping."""
    under_way: bool = False
    """Batches from `offset` on may be stored, too."""
    at: float = 0.0
    """When this was so, by the wall clock."""


class _File(msgspec.Struct, frozen=True):
    source: str
    target: str
    cluster_id: str
    topic_id: str
    places: dict[int, Place]


class Places:
    """The places of one replay, which it alone changes for as long as `kept` holds."""

    def __init__(self, path: Path, file: _File) -> None:
        self._path, self._file = path, file
        self._saved_at = time.monotonic()

    def of(self, partition: int) -> Place:
        """Where to go on."""
        return self._file.places.get(partition, Place())

    def save(self, partition: int, place: Place) -> None:
        """Keep it, durably."""
        self._file.places[partition] = place
        write_atomically(self._path, msgspec.json.encode(self._file), mode=FILE_MODE)
        self._saved_at = time.monotonic()

    def passed(self, partition: int, place: Place) -> None:
        """Keep it if the last time is a while ago: what the file lacks, the target says."""
        if time.monotonic() >= self._saved_at + SAVE_SECONDS:
            self.save(partition, place)


@contextlib.contextmanager
def kept(directory: Path, topic: str, target: TopicInfo, cluster_id: str, *, again: bool = False) -> Iterator[Places]:
    """The places of a replay from a log to a topic; `again`: from the beginning. ConfigError if they cannot be kept."""
    what = "\0".join((topic, cluster_id, target.name, target.topic_id))
    path = directory / FOLDER / f"{topic}.{hashlib.sha256(what.encode()).hexdigest()[:16]}.json"
    try:
        path.parent.mkdir(DIRECTORY_MODE, exist_ok=True)
        lock = open_own(path.with_suffix(".lock"), os.O_RDWR)
    except OSError as error:
        text = f"cannot be written, and a replay keeps its place there: {error.strerror}"
        raise ConfigError([Problem(path.parent, "", text)]) from error
    try:
        _own(lock, path)
        yield Places(path, _read(path, again=again) or _File(topic, target.name, cluster_id, target.topic_id, {}))
    finally:
        os.close(lock)


def _own(lock: int, path: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError([Problem(path, "", "is in use by another replay of this topic to this target")]) from None


def _read(path: Path, *, again: bool) -> _File | None:
    if again:
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=_File)
    except FileNotFoundError:
        return None
    except (OSError, *MALFORMED) as error:
        text = f"cannot be read, so what was replayed is not known: {error}; to copy everything (again): --again"
        raise ConfigError([Problem(path, "", text)]) from error
