"""The forwarder's configuration: where it keeps its state, its identity, its receivers, and its streams.

`load_forwarder` reads logfwd.toml and every streams_dir/NAME.toml, and collects every problem in all of them before it
rejects them. A configuration that is blank, or has no streams, is rejected too: it can only be a mistake.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from logfwd import definition
from logfwd.definition import Stream
from logfwd.sources.settings import Claims
from streams.config import schema, toml
from streams.config.kinds import Address, HostName, ListenAddress, RequestHost
from streams.config.sections import Tls, lacking
from streams.config.variables import FromFile
from streams.errors import ConfigError, Problem

NOT_IN_THE_FILE = ("streams", "removed")


class Admin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where metrics and health are served."""

    address: ListenAddress = "127.0.0.1:9464"
    hosts: tuple[RequestHost, ...] = ()


class ForwarderConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """logfwd.toml, and the streams of its streams_dir (filled in by the loader)."""

    state_dir: Path
    receivers: Annotated[tuple[Address, ...], Meta(min_length=1)]
    tls: Tls = Tls()
    streams_dir: Path = Path("streams.d")
    server_name: HostName | None = None
    admin: Admin | None = Admin()
    stop_grace_seconds: Annotated[float, Meta(ge=0, le=3600)] = 10.0
    answer_timeout_seconds: Annotated[float, Meta(ge=1, le=3600)] = 60.0
    watch: bool = False
    streams: tuple[Stream, ...] = ()
    removed: tuple[str, ...] = ()
    """Streams whose files say that they are to go."""

    @property
    def modes(self) -> set[str]:
        """Names of the modes that its links can have."""
        return {stream.security for stream in self.streams}


Drafts = Mapping[Path, str]
"""Texts that files of streams are to have, by path."""
NONE: Drafts = {}


def load_forwarder(path: Path, drafts: Drafts = NONE, *, opens_files: bool = True) -> ForwarderConfig:
    """Read and check everything; raises ConfigError with every problem. Twins come after originals.

    `drafts`: as if these files had been written; `opens_files`: whether keys and certificates have to be readable.
    """
    base = path.absolute().parent
    table = toml.parse(path, base)
    problems: list[Problem] = []
    config = toml.convert(
        table,
        ForwarderConfig,
        path=path,
        base=base,
        problems=problems,
        hidden=NOT_IN_THE_FILE,
        opens_files=opens_files,
    )
    directory = table.get("streams_dir", "streams.d")
    streams: list[Stream] = []
    if isinstance(directory, str) and not isinstance(directory, FromFile):
        streams = _load_streams(base / directory, base, problems, drafts)
    if config is not None:
        toml.add(problems, path, lacking(config.tls, {stream.security for stream in streams}, accepting=False))
    if problems or config is None:
        raise ConfigError(problems)
    removed = {stream.name for stream in streams if stream.removed}
    kept = tuple(stream for stream in streams if not {stream.name, stream.mirror_of} & removed)
    if not kept:
        raise ConfigError(
            [Problem(base / config.streams_dir, "", "every stream is removed; stop the forwarder instead")]
        )
    return msgspec.structs.replace(
        config, streams_dir=base / config.streams_dir, streams=kept, removed=tuple(sorted(removed))
    )


def streams_dir_of(path: Path) -> Path:
    """Where the files of the streams are; raises ConfigError if the file cannot be read."""
    base = path.absolute().parent
    directory = toml.parse(path, base).get("streams_dir", "streams.d")
    return base / (directory if isinstance(directory, str) else "streams.d")


def files_of(path: Path, config: ForwarderConfig) -> list[Path]:
    """The files of a configuration that was loaded from `path`: those that are there, and those that were.

    Those of certificates, too.
    """
    known = {config.streams_dir / f"{stream.name}.toml" for stream in config.streams}
    certificates = {file for section in config.tls.sections() for file in section.paths()}
    return [path, *sorted(known.union(config.streams_dir.glob("*.toml"), certificates))]


def ignored_in(directory: Path) -> str:
    """Names of files beside those of streams that somebody may take for streams; empty if there are none."""
    there = sorted(path.name for path in directory.iterdir() if path.is_file() and path.suffix != ".toml")
    return ", ".join(name for name in there if not name.startswith("."))


def json_schema(kind: str) -> dict[str, Any]:
    """The JSON Schema of logfwd.toml ("logfwd") or of a stream's file ("stream")."""
    from streams.config.keys import meanings

    if kind == "stream":
        return schema.json_schema(Stream, meanings("streams.d/NAME.toml"))
    return schema.json_schema(ForwarderConfig, meanings("logfwd.toml"), hidden=NOT_IN_THE_FILE)


class _File(NamedTuple):
    """A stream's file; `stream` is None if it has problems."""

    path: Path
    name: object
    stream: Stream | None


def _load_streams(directory: Path, base: Path, problems: list[Problem], drafts: Drafts) -> list[Stream]:
    there = {path for path in directory.glob("*.toml") if not path.name.startswith(".")}
    paths = sorted(there | drafts.keys())
    if not paths:
        what = "has no stream files; add a NAME.toml" if directory.is_dir() else "is not a directory; create it"
        problems.append(Problem(directory, "", f"{what} (a forwarder needs at least one stream)"))
    files = [_load_stream(path, base, problems, drafts.get(path)) for path in paths]
    problems += _check_together(files)
    streams = [file.stream for file in files if file.stream is not None]
    return sorted(streams, key=lambda stream: (stream.mirror_of is not None, stream.name))


def _load_stream(path: Path, base: Path, problems: list[Problem], draft: str | None) -> _File:
    try:
        table = toml.parse(path, base, draft=draft)
    except ConfigError as error:
        problems += error.problems
        return _File(path, path.stem, None)
    stream = toml.convert(table, Stream, path=path, base=base, problems=problems)
    if stream is not None:
        toml.add(problems, path, definition.check(stream, table))
    return _File(path, table.get("name"), stream)


def _check_together(files: list[_File]) -> Iterator[Problem]:
    """Rules across files. A name whose file has other problems still counts as a stream."""
    counts = Counter(file.name for file in files if isinstance(file.name, str))
    by_name = {file.name: file.stream for file in files if isinstance(file.name, str)}
    claims = Claims()
    for path, name, stream in files:
        if isinstance(name, str) and name != path.stem:
            yield Problem(path, "name", f"is {name!r} in a file named {path.name}; rename the file to {name}.toml")
        if isinstance(name, str) and counts[name] > 1:
            yield Problem(path, "name", f"{name!r} is used by {counts[name]} files; give each stream a name of its own")
        if stream is None:
            continue
        if stream.mirror_of is not None:
            for key, message in definition.check_twin_of(stream, by_name):
                yield Problem(path, key, message)
        if stream.source is not None:
            for key, message in claims.conflicts(stream.name, stream.source):
                yield Problem(path, key, message)
