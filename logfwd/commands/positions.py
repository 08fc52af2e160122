"""`logfwd positions`: how far the files of a stream were read, and how to change that by hand."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click

from logfwd.commands.spools import file_of, reading, spool_command, without_forwarder
from logfwd.config import ForwarderConfig
from logfwd.sources.file.identity import Place, place_at
from logfwd.sources.file.marks import Detail, mark_of, read_mark
from logfwd.sources.file.plain import SIGNATURE_BYTES, compression_of
from logfwd.sources.file.scanned import SCAN_KEY
from logfwd.sources.position import FILE, Mark, Position
from logfwd.sources.settings import FileSource
from logfwd.spool.notes import Notes
from logfwd.spool.schema import rows
from logfwd.spool.store import Spool
from streams import program
from streams.columns import aligned

LINE_BYTES = 1024 * 1024
"""How far around an offset the ends of lines are looked for."""


class Stored(NamedTuple):
    """One stored position."""

    key: str
    path: str
    place: Place
    detail: Detail

    def shown(self) -> dict[str, Any]:
        """The position as JSON; `size` and `unread` are null if its path leads to another file now, or to none."""
        size = None
        with contextlib.suppress(OSError):
            status = os.stat(self.path)
            known = status.st_size if self.place.archive is None else self.place.archive.plain_bytes
            size = known if status.st_ino == self.place.inode else None
        return {
            "path": self.path,
            "offset": self.place.offset,
            "size": size,
            "unread": None if size is None else max(size - self.place.offset, 0),
            "inode": self.place.inode,
            "away_seconds": self.detail.away_seconds,
            "key": self.key,
        }


@click.group()
def positions() -> None:
    """Show and change how far the files of a stream were read.

    A position belongs to a file, whatever its name: it is found again by inode, handle and content. `set` and `rm`
    change what is read next, so they can repeat records or leave some out. Stop the forwarder for them.
    """


@positions.command("list")
@spool_command
@click.argument("stream")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def list_positions(config: ForwarderConfig, stream: str, as_json: bool) -> None:
    """List the positions of STREAM by path.

    OFFSET is how far the records are spooled or stored, SIZE that of the file now; "-" if its path leads to another
    file or to none. Works while the forwarder runs.
    """
    found = [each.shown() for each in _stored(file_of(config, stream))]
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    titles = ["PATH", "OFFSET", "SIZE", "UNREAD", "INODE"]
    keys = [title.lower() for title in titles]
    table = [titles, *(["-" if each[key] is None else str(each[key]) for key in keys] for each in found)]
    for line in aligned(table, numbers_from=1):
        program.say(line)


@positions.command("set")
@spool_command
@click.argument("stream")
@click.argument("file", metavar="PATH", type=click.Path(exists=True, dir_okay=False))
@click.argument("offset")
def set_position(config: ForwarderConfig, stream: str, file: str, offset: str) -> None:
    """Read PATH from OFFSET on.

    OFFSET is a number of bytes at which a line begins, "start", or "end" (after the last whole line). What lies before
    it is not read, what was read behind it is read again.
    """
    path = os.path.abspath(file)
    source = next((each.source for each in config.streams if each.name == stream), None)
    head_start = source.header_bytes if isinstance(source, FileSource) else 0
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if compression_of(os.pread(fd, SIGNATURE_BYTES, 0)):
            raise click.ClickException(f"{path} is compressed: its position can only be removed (`positions rm`)")
        at = _offset(fd, path, offset)
        place, status = place_at(fd, at, head_start), os.fstat(fd)
    finally:
        os.close(fd)
    spool = file_of(config, stream)
    with without_forwarder(config, "change positions"):
        same = [each for each in _stored(spool) if each.path == path or each.place.inode == status.st_ino]
        family = os.fsdecode(same[0].detail.family) if same else path
        mark = mark_of(place, path, family, status.st_mtime_ns // 1_000_000)
        keys = [each.key for each in same] or [uuid.uuid4().hex]
        asyncio.run(_change(spool, {keys[0]: Position(FILE, mark.encode())}, keys[1:]))
    before = f", before {same[0].place.offset}" if same else ""
    program.say(f"{path}: position {at} of {status.st_size} bytes{before}")


@positions.command("rm")
@spool_command
@click.argument("stream")
@click.argument("paths", nargs=-1, required=True)
def remove_positions(config: ForwarderConfig, stream: str, paths: tuple[str, ...]) -> None:
    """Forget the positions of PATHS, or of keys.

    Files that are still there are read from their start.
    """
    spool = file_of(config, stream)
    with without_forwarder(config, "change positions"):
        stored, keys = _stored(spool), []
        for path in paths:
            found = [each.key for each in stored if path == each.key or os.path.abspath(path) == each.path]
            if not found:
                raise click.ClickException(f"stream {stream} has no position for {path}; see `logfwd positions list`")
            keys += found
        asyncio.run(_change(spool, {}, keys))
    program.say(f"forgot {len(keys)} positions")


def _stored(path: Path) -> list[Stored]:
    """The positions of files in a spool, by path."""
    found = []
    with reading(path) as connection:
        for key, source, value, _ in rows(connection, "positions", "ORDER BY key"):
            mark = Mark.decode(value) if source == FILE and key != SCAN_KEY else None
            if mark is not None and (known := read_mark(mark)) is not None:
                found.append(Stored(key, os.fsdecode(known[1].path), *known))
    return sorted(found, key=lambda each: (each.path, each.place.inode))


def _offset(fd: int, path: str, text: str) -> int:
    size = os.fstat(fd).st_size
    if text == "start":
        return 0
    if text == "end":
        start = max(size - LINE_BYTES, 0)
        return start + os.pread(fd, size - start, start).rfind(b"\n") + 1
    if not text.isdecimal() or int(text) > size:
        raise click.BadParameter(f'{text}: give "start", "end" or at most {size}, the size of {path}')
    at = int(text)
    if at and os.pread(fd, 1, at - 1) != b"\n":
        start = max(at - LINE_BYTES, 0)
        before = start + os.pread(fd, at - start, start).rfind(b"\n") + 1
        after = at + os.pread(fd, LINE_BYTES, at).find(b"\n") + 1
        raise click.BadParameter(f"{at} is within a line of {path}, which begins at {before}; the next one at {after}")
    return at


async def _change(path: Path, changed: Mapping[str, Position], removed: Iterable[str]) -> None:
    async with Spool(path) as spool:
        notes = Notes()
        notes.put_positions(changed, removed)
        await spool.commit(notes)
