"""The definition of a stream: its name, its source, how it is cut into batches, and how it must be secured.

One TOML file per stream, `streams.d/NAME.toml`. A *twin* (`mirror_of`) names only what differs from its original:
security mode, receivers, topic and limits of its own spool rows.

The range of a single value stands in its field's type and is checked when the file is read (toml.py); `check` and
`check_twin_of` hold the rules across several values, or several streams. Nothing here reads a file or a clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from logfwd.sources.http.settings import HttpSource
from logfwd.sources.settings import TYPES, FileSource, LineSource, SourceSettings
from logfwd.sources.syslog.settings import SyslogSource
from streams.config.kinds import (
    STREAM,
    STREAM_RULE,
    Address,
    HostName,
    ModeName,
    TopicName,
    check_not_empty,
    checked,
    shown,
)
from streams.config.toml import Fault
from streams.config.units import GIB, KIB, MIB, show_size
from streams.wire.messages import MAX_WINDOW

NOT_IN_A_TWIN = ("source", "batch", "invalid", "codec", "add", "headers", "key_field")
MAX_HEADER_BYTES = 4 * KIB
MAX_PATH_FIELD_BYTES = 64 * KIB
"""What the name of a file may take: 4096 bytes, each of six characters in JSON, once by itself and once in parts."""
LEAST_RECORD_BYTES = 256
"""The least that `max_record_bytes` leaves for a record itself."""


def check_name(name: str) -> None:
    """Raise ValueError for an invalid stream name."""
    if not STREAM.fullmatch(name):
        raise ValueError(f"{name!r} is not a valid stream name; {STREAM_RULE}")


Constant = str | int | float | bool
"""The value of a constant field."""

StreamName = Annotated[str, shown(check_name)]


class BatchLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a batch is full, and how large a record may be.

    `max_batch_bytes` are those of a batch as it is sent and stored, so after compression if there is any.
    """

    max_batch_records: Annotated[int, Meta(ge=1, le=1_000_000)] = 50_000
    max_batch_bytes: Annotated[int, Meta(ge=1 * KIB, le=8 * MIB)] = 900 * KIB
    max_uncompressed_bytes: Annotated[int, Meta(ge=1 * KIB, le=8 * MIB)] = 8 * MIB
    max_record_bytes: Annotated[int, Meta(ge=LEAST_RECORD_BYTES, le=8 * MIB)] = 512 * KIB
    linger_seconds: Annotated[float, Meta(ge=0.001, le=60)] = 0.2


class SpoolLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much may wait on disk, and what happens beyond that. A twin always drops its oldest batches."""

    max_spool_bytes: Annotated[int, Meta(ge=16 * MIB)] = GIB
    max_waiting_batches: Annotated[int, Meta(ge=1_000)] = 5_000_000
    max_dead_letter_bytes: Annotated[int, Meta(ge=1 * MIB)] | None = None
    when_full: Literal["block", "drop_oldest"] = "block"

    @property
    def dead_letter_bytes(self) -> int:
        """What dead letters may take; by default a tenth of what batches may."""
        return self.max_dead_letter_bytes or self.max_spool_bytes // 10


class Stream(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One named flow. The receiver decides the topic; if `topic` is set, the forwarder refuses any other answer."""

    name: StreamName
    mirror_of: Annotated[str, shown()] | None = None
    removed: bool = False
    security: ModeName = "hybrid"
    topic: TopicName | None = None
    receivers: tuple[Address, ...] = ()
    server_name: HostName | None = None
    invalid: Literal["wrap", "drop", "refuse"] = "wrap"
    codec: Literal["zstd", "none"] = "zstd"
    window: Annotated[int, Meta(ge=1, le=MAX_WINDOW)] = MAX_WINDOW
    source: SourceSettings | None = None
    add: dict[str, Constant] = {}
    headers: dict[str, str] = {}
    key_field: Annotated[str, checked(check_not_empty)] | None = None
    batch: BatchLimits = BatchLimits()
    spool: SpoolLimits = SpoolLimits()

    @property
    def defaults(self) -> Mapping[str, Constant]:
        """Fields of [add] that the messages of its source may have, too: only records without them get them."""
        own = self.source.own_fields if isinstance(self.source, SyslogSource) else ()
        return {name: value for name, value in self.add.items() if name in own}

    @property
    def constants(self) -> Mapping[str, Constant]:
        """Fields of [add] that every record gets."""
        return {name: value for name, value in self.add.items() if name not in self.defaults}

    @property
    def own_record_bytes(self) -> int:
        """The most that a record may take by itself, without the fields that [add] puts in front of its own."""
        return self.batch.max_record_bytes - (len(members(self.add)) + 1 if self.add else 0)


_encode = msgspec.json.Encoder().encode


def members(fields: Mapping[str, Constant]) -> bytes:
    """Constant fields as members of a JSON object, without its braces."""
    return _encode(fields)[1:-1]


def check(stream: Stream, given: Mapping[str, object]) -> list[Fault]:
    """Problems of one stream by itself. `given` is its file's table: a value that is not in it is a default."""
    return list(_check_original(stream) if stream.mirror_of is None else _check_twin(stream, given))


def _check_original(stream: Stream) -> Iterator[Fault]:
    if stream.source is None:
        types = " or ".join(f'"{each}"' for each in TYPES)
        yield "source", f"is missing; add [source] with type = {types} (or mirror_of, for a twin)"
    else:
        yield from stream.source.faults()
        if stream.invalid == "refuse" and not isinstance(stream.source, HttpSource):
            yield "invalid", 'cannot be "refuse": only a client of type = "http" can be refused; write "wrap" or "drop"'
        yield from _check_raw(stream)
    for limit in ("max_batch_bytes", "max_uncompressed_bytes"):
        if stream.batch.max_record_bytes > getattr(stream.batch, limit):
            yield (
                "batch.max_record_bytes",
                f"is more than batch.{limit}; a record has to fit into a batch, so lower it or raise that",
            )
    yield from _check_fields(stream)
    header_bytes = sum(len(name.encode()) + len(text.encode()) for name, text in stream.headers.items())
    if header_bytes > MAX_HEADER_BYTES:
        yield "headers", f"takes {header_bytes} bytes of every record; shorten it to {MAX_HEADER_BYTES}"


def _check_fields(stream: Stream) -> Iterator[Fault]:
    """Constant fields leave room for the record itself, and have names of their own."""
    of_files = stream.source.added_fields if isinstance(stream.source, FileSource) else ()
    if stream.own_record_bytes < LEAST_RECORD_BYTES:
        yield (
            "add",
            f"takes {len(members(stream.add)) + 1} bytes of every record, so batch.max_record_bytes leaves less than "
            f"{LEAST_RECORD_BYTES} for the record itself; shorten its texts or raise that",
        )
    elif of_files and stream.own_record_bytes < MAX_PATH_FIELD_BYTES:
        yield (
            "batch.max_record_bytes",
            f"is too small for the name of a file in every record; raise it to {show_size(MAX_PATH_FIELD_BYTES)} more "
            "than what [add] takes",
        )
    for key in sorted(set(of_files) & set(stream.add)):
        yield f"add.{key}", "is a field that [source] adds, too; choose another name"


def _check_raw(stream: Stream) -> Iterator[Fault]:
    """Records that are not parsed have no fields."""
    if isinstance(stream.source, LineSource) and stream.source.format == "raw":
        kinds: list[tuple[str, object]] = [("add", stream.add), ("key_field", stream.key_field)]
        if isinstance(stream.source, FileSource):
            kinds += [("source.path_field", stream.source.path_field), ("source.kubernetes", stream.source.kubernetes)]
        for key, given in kinds:
            if given:
                yield key, 'cannot be used with source.format = "raw", whose records are not parsed; remove it'


def _check_twin(stream: Stream, given: Mapping[str, object]) -> Iterator[Fault]:
    for key in NOT_IN_A_TWIN:
        if key in given:
            yield key, f"comes from the original {stream.mirror_of!r}; remove it from the twin"
    spool = given.get("spool")
    if isinstance(spool, Mapping) and spool.get("when_full") == "block":
        yield "spool.when_full", "cannot be block: a twin never holds up its original; remove it"


def check_twin_of(twin: Stream, originals: Mapping[str, Stream | None]) -> list[Fault]:
    """Problems of a twin's `mirror_of`. None stands for a stream whose file has other problems."""
    name = twin.mirror_of
    if name == twin.name:
        return [("mirror_of", "names the stream itself; name its original")]
    if name is None or name not in originals:
        known = ", ".join(sorted(set(originals) - {twin.name})) or "none"
        return [("mirror_of", f"there is no stream {name!r}; existing streams: {known}")]
    original = originals[name]
    if original is not None and original.mirror_of is not None:
        return [("mirror_of", f"{name!r} is a twin itself; name its original {original.mirror_of!r}")]
    return []
