"""Which source reads what a [source] table describes: one row for each type, its module imported when it is needed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from logfwd.sources import Source
from logfwd.sources.settings import FileSource, SourceSettings, StdinSource


class Limits(NamedTuple):
    """Limits of the stream that its source has to know."""

    max_record_bytes: int
    block_bytes: int


Others = Callable[[], Collection[SourceSettings]]
"""The [source] tables of the other streams, as they are now: a reload may change them."""


def make_source(settings: SourceSettings, limits: Limits, others: Others = tuple) -> Source:
    """The source for a stream; it opens nothing before its blocks are asked for."""
    return _MAKERS[type(settings)](settings, limits, others)


def _file(settings: FileSource, limits: Limits, others: Others) -> Source:
    from logfwd.sources.file import FileTail

    def files() -> list[FileSource]:
        return [each for each in others() if isinstance(each, FileSource)]

    return FileTail(settings, max_record_bytes=limits.max_record_bytes, block_bytes=limits.block_bytes, others=files)


def _stdin(_: StdinSource, limits: Limits, _others: Others) -> Source:
    from logfwd.sources.stdin import Stdin

    return Stdin(max_record_bytes=limits.max_record_bytes)


_MAKERS: Mapping[type, Callable[[Any, Limits, Others], Source]] = {FileSource: _file, StdinSource: _stdin}
