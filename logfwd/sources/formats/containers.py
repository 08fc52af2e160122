"""Lines that container runtimes write: `cri` (Kubernetes) and `docker` (the json-file driver). No I/O.

2016-10-06T00:17:09.669794202Z stdout P the first part of a li      cri: P, the line goes on; F, it is whole
{"log":"a line\\n","stream":"stdout","time":"2016-10-06T…Z"}         docker: without \\n the line goes on
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec
from msgspec import UNSET, Raw, UnsetType

_STREAMS = {b"stdout": "stdout", b"stderr": "stderr"}
_SHORTEST_TIME = len("2016-10-06T00:17:09Z")


class Piece(NamedTuple):
    """A line of the container, or a part of one. `fields` are those of its record but for the content."""

    stream: str
    content: bytes
    is_end: bool
    fields: dict[str, object]


Parse = Callable[[bytes], Piece | None]
"""Takes a line apart; None if it is not in the format."""


class DockerLine(msgspec.Struct):
    """A line of the json-file driver."""

    log: str
    stream: str
    time: str
    attrs: Raw | UnsetType = UNSET


decode_docker = msgspec.json.Decoder(DockerLine).decode


def cri(line: bytes) -> Piece | None:
    """The piece that a line of the runtime is; None if it is not in this format."""
    fields = line.split(b" ", 3)
    if len(fields) < 3 or (stream := _STREAMS.get(fields[1])) is None:
        return None
    time, tag = fields[0], fields[2].partition(b":")[0]
    if tag not in (b"P", b"F") or len(time) < _SHORTEST_TIME or time[10:11] != b"T" or not time.isascii():
        return None
    content = fields[3] if len(fields) == 4 else b""
    return Piece(stream, content, tag == b"F", {"time": time.decode(), "stream": stream})


def docker(line: bytes) -> Piece | None:
    """The piece that a line of the json-file driver is; None if it is not in this format."""
    try:
        found = decode_docker(line)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    fields: dict[str, object] = {"time": found.time, "stream": found.stream}
    if found.attrs is not UNSET:
        fields["attrs"] = Raw(bytes(found.attrs))
    content = found.log.encode("utf-8", "replace")
    return Piece(found.stream, content.removesuffix(b"\n"), content.endswith(b"\n"), fields)
