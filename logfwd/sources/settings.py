"""The [source] table of a stream's file: one Struct for each type of source.

A new type of source needs a Struct in `SourceSettings`, its module, and a row in make.py. `claims` names what only one
stream can read, each with the key to point at, so that two streams that claim the same thing are rejected together.
`shares` names what several may use on the same terms, `faults` what is wrong with a table by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta

from logfwd.sources.formats.encodings import check_encoding
from logfwd.sources.formats.patterns import check_pattern
from logfwd.sources.http.settings import HttpSource
from logfwd.sources.syslog.settings import SyslogSource
from streams.config.kinds import Glob, check_not_empty, checked, shown
from streams.config.toml import spelling
from streams.config.units import KIB, MIB

Format = Literal["json", "text", "cri", "docker", "raw"]
SearchPattern = Annotated[str, shown(check_pattern)]


class Multiline(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which lines belong together: `start` matches the first line of a record, `continue` every other one."""

    start: SearchPattern | None = None
    continue_: SearchPattern | None = None
    max_lines: Annotated[int, Meta(ge=2, le=10_000)] = 500
    max_bytes: Annotated[int, Meta(ge=256, le=8 * MIB)] = 512 * KIB
    wait_seconds: Annotated[float, Meta(ge=0.01, le=60)] = 1.0


EncodingName = Annotated[str, shown(check_encoding)]


class LineSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the lines of a source are, for sources of lines."""

    format: Format = "json"
    encoding: EncodingName = "utf-8"
    multiline: Multiline | None = None

    def shares(self) -> Mapping[str, tuple[str, object]]:
        """Nothing."""
        return {}

    def faults(self) -> Iterator[tuple[str, str]]:
        """What is wrong across several keys: the key and a message."""
        if self.encoding != "utf-8" and self.format != "text":
            yield (
                "source.encoding",
                f'is for format = "text"; lines of format = "{self.format}" are not decoded, so remove it',
            )
        if self.multiline is not None:
            if self.format in ("json", "raw"):
                yield "source.multiline", f'is for format = "text", "cri" or "docker", not "{self.format}"; remove it'
            if (self.multiline.start is None) == (self.multiline.continue_ is None):
                yield "source.multiline", "needs either start or continue, a regular expression; write one of them"


class FileSource(LineSource, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="file"):
    """Files by glob; position by fingerprint, inode and offset."""

    paths: Annotated[tuple[Glob, ...], Meta(min_length=1)]
    exclude: tuple[Glob, ...] = ()
    start_at: Literal["beginning", "end"] = "beginning"
    max_open_files: Annotated[int, Meta(ge=1, le=65_536)] = 256
    scan_seconds: Annotated[float, Meta(ge=0.01, le=3600)] = 1.0
    rotated: tuple[Glob, ...] = ()
    rotated_wait_seconds: Annotated[float, Meta(ge=0, le=86_400)] = 60.0
    max_deleted_bytes: Annotated[int, Meta(ge=0)] = 1024 * MIB
    forget_after_seconds: Annotated[float, Meta(ge=60, le=3660 * 86_400)] = 30 * 86_400.0
    ignore_older_seconds: Annotated[float, Meta(ge=0, le=3660 * 86_400)] = 0.0
    header_bytes: Annotated[int, Meta(ge=0, le=MIB)] = 0
    compressed: Literal["finish", "read"] = "finish"
    follow_links: Literal["same_owner", "all", "none"] = "same_owner"
    path_field: Annotated[str, checked(check_not_empty)] | None = None
    kubernetes: bool = False

    @property
    def added_fields(self) -> tuple[str, ...]:
        """The keys of the fields that every record gets from the name of its file."""
        return (
            *((self.path_field,) if self.path_field is not None else ()),
            *(("kubernetes",) if self.kubernetes else ()),
        )

    def claims(self) -> Mapping[str, str]:
        """Nothing: several streams may read the same files."""
        return {}

    def faults(self) -> Iterator[tuple[str, str]]:
        """What lines cannot be, and what the name of a file cannot give."""
        yield from super().faults()
        if self.kubernetes and not any(
            part in each for each in self.paths for part in ("/pods/", "/containers/", "**")
        ):
            yield (
                "source.kubernetes",
                "needs files below a directory pods or containers; name /var/log/pods/*/*/*.log in source.paths, or "
                "remove it",
            )
        if self.kubernetes and self.path_field == "kubernetes":
            yield "source.path_field", "is the field that source.kubernetes adds; choose another name"


class StdinSource(LineSource, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="stdin"):
    """Standard input; the stream ends with it."""

    def claims(self) -> Mapping[str, str]:
        """Standard input."""
        return {"stdin": "source.type"}


SourceSettings = FileSource | StdinSource | HttpSource | SyslogSource

TYPES = tuple(str(kind.__struct_config__.tag) for kind in get_args(SourceSettings))
"""What `type` may be."""


def kind_of(settings: SourceSettings) -> str:
    """Its `type`, by which the spool knows whose positions it holds."""
    return str(settings.__struct_config__.tag)


class Claims:
    """What the streams seen so far read alone, and on which terms they use what they share."""

    def __init__(self) -> None:
        self._owners: dict[str, str] = {}
        self._terms: dict[str, tuple[str, object]] = {}

    def conflicts(self, stream: str, settings: SourceSettings) -> Iterator[tuple[str, str]]:
        """Add a stream; a fault (key, message) for each claim that another stream made before, or other terms."""
        for shared, (key, terms) in settings.shares().items():
            owner, agreed = self._terms.setdefault(shared, (stream, terms))
            if agreed != terms:
                yield key, f"{shared} is used by stream {owner!r} with other settings; {_differences(terms, agreed)}"
        for claim, key in settings.claims().items():
            owner = self._owners.setdefault(claim, stream)
            if owner != stream:
                yield key, f"{claim} is read by stream {owner!r} already; only one stream can read it"


def _differences(terms: object, agreed: object) -> str:
    fields = getattr(terms, "_fields", ())
    names = [spelling(name) for name in fields if getattr(terms, name) != getattr(agreed, name)]
    return f"give both the same {', '.join(names)}, or another address"
