"""Which source reads what a [source] table describes: one row for each type, its module imported when it is needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from logfwd.sources import Source
from logfwd.sources.settings import FileSource, SourceSettings, StdinSource


class Limits(NamedTuple):
    """Limits of the stream that its source has to know."""

    max_record_bytes: int
    block_bytes: int


def make_source(settings: SourceSettings, limits: Limits) -> Source:
    """The source for a stream; it opens nothing before its blocks are asked for."""
    return _MAKERS[type(settings)](settings, limits)


def _file(settings: FileSource, limits: Limits) -> Source:
    from logfwd.sources.file import FileTail

    return FileTail(settings, max_record_bytes=limits.max_record_bytes, block_bytes=limits.block_bytes)


def _stdin(_: StdinSource, limits: Limits) -> Source:
    from logfwd.sources.stdin import Stdin

    return Stdin(max_record_bytes=limits.max_record_bytes)


_MAKERS: Mapping[type, Callable[[Any, Limits], Source]] = {FileSource: _file, StdinSource: _stdin}
