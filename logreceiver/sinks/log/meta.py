"""What a log's directory keeps in addition to batches: meta.json (cluster id, topics) and producer-ids.

Both files are replaced as a whole and durable before a method returns. Blocking; used by one thread at a time.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path

import msgspec
import structlog

from logreceiver.sinks.log.files import FILE_MODE
from streams.decoding import MALFORMED
from streams.errors import ConfigError, Problem
from streams.files import write_atomically

META = "meta.json"
IDS_AT_ONCE = 1000
"""Producer ids set aside by one write, as Kafka does it: what is left of them at a restart is never handed out."""
_LOST_IDS_GAP = 1 << 20
"""How far producer ids jump ahead when the file that counts them is lost."""

log = structlog.get_logger("logreceiver.log")


class LogTopic(msgspec.Struct, frozen=True):
    """A topic keeps the number of partitions that it was created with: runs are bound to them."""

    topic_id: str
    partition_count: int


class _Meta(msgspec.Struct, frozen=True):
    """The content of meta.json."""

    cluster_id: str
    topics: dict[str, LogTopic]


def topics_in(path: Path) -> Mapping[str, LogTopic]:
    """The topics that a meta.json knows. ConfigError if it is damaged, FileNotFoundError."""
    return _decoded(path).topics


def _decoded(path: Path) -> _Meta:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Meta)
    except MALFORMED as error:
        text = f"is damaged ({error}); restore it, or move the directory away to start a new log"
        raise ConfigError([Problem(path, "", text)]) from error


class LogMeta:
    """The two files in `directory`. `read` before anything else, then `read_producer_ids`."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / META
        self._ids_path = directory / "producer-ids"
        self._meta = _Meta("", {})
        self._next_producer_id = 0
        self._set_aside = 0
        """Ids below are set aside."""

    @property
    def cluster_id(self) -> str:
        return self._meta.cluster_id

    @property
    def topics(self) -> Mapping[str, LogTopic]:
        return self._meta.topics

    def read(self) -> None:
        """Read meta.json, or start a new log. ConfigError if the file is damaged."""
        if not self._path.exists():
            _write(self._ids_path, b"0")  # first, so that a log never exists without its count of ids
            self._write(_Meta(str(uuid.uuid4()), {}))
            return
        self._meta = _decoded(self._path)

    def add_topic(self, name: str, partition_count: int) -> None:
        """Give a topic its id."""
        topic = LogTopic(str(uuid.uuid4()), partition_count)
        self._write(_Meta(self.cluster_id, {**self.topics, name: topic}))

    def _write(self, meta: _Meta) -> None:
        _write(self._path, msgspec.json.encode(meta))
        self._meta = meta

    def read_producer_ids(self, highest: int) -> None:
        """Read the count of producer ids; `highest` is the greatest one in any partition."""
        try:
            counter = int(self._ids_path.read_bytes())
        except (OSError, ValueError):
            counter = 0
            if self.topics:
                log.error("producer id count lost", path=str(self._ids_path), from_id=highest + 1)
                counter = highest + _LOST_IDS_GAP  # ids without a stored batch may have been handed out beyond it
        self._next_producer_id = self._set_aside = max(counter, highest + 1)

    def take_producer_id(self, highest: int) -> int:
        """An id that was never handed out, and that is greater than `highest`."""
        producer_id = max(self._next_producer_id, highest + 1)
        if producer_id >= self._set_aside:
            _write(self._ids_path, str(producer_id + IDS_AT_ONCE).encode())
            self._set_aside = producer_id + IDS_AT_ONCE
        self._next_producer_id = producer_id + 1
        return producer_id


def _write(path: Path, data: bytes) -> None:
    write_atomically(path, data, mode=FILE_MODE)
