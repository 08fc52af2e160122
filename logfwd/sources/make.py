"""Which source reads what a [source] table describes: one row for each type, its module imported when it is needed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from logfwd.sources import Source
from logfwd.sources.formats.text import Count, ignore
from logfwd.sources.front import Handle
from logfwd.sources.http.settings import HttpSource
from logfwd.sources.permits import Permit
from logfwd.sources.settings import FileSource, SourceSettings, StdinSource
from logfwd.sources.syslog.settings import SyslogSource


class Context(NamedTuple):
    """What a source has to know besides its own settings."""

    max_record_bytes: int
    block_bytes: int
    handle: Handle
    """The stream's part of the front, for the life of its pipeline."""
    permit: Permit
    """To read files; its pipeline has it, too."""
    others: Callable[[], Collection[SourceSettings]] = tuple
    """The [source] tables of the other streams, as they are now: a reload may change them."""
    count_records: Count = ignore
    """Counts records by a state of `logfwd_records_total`."""
    count_files: Count = ignore
    count_file_bytes: Count = ignore
    """Count files, and their bytes, by an event of `logfwd_files_total`."""


def make_source(settings: SourceSettings, context: Context) -> Source:
    """The source for one pipeline of a stream; it opens nothing before its blocks are asked for."""
    return _MAKERS[type(settings)](settings, context)


def _file(settings: FileSource, context: Context) -> Source:
    from logfwd.sources.file.report import Report
    from logfwd.sources.file.source import FileTail

    def files() -> list[FileSource]:
        return [each for each in context.others() if isinstance(each, FileSource)]

    return FileTail(
        settings,
        max_record_bytes=context.max_record_bytes,
        block_bytes=context.block_bytes,
        permit=context.permit,
        others=files,
        count=context.count_records,
        report=Report(context.count_files, context.count_file_bytes),
    )


def _stdin(settings: StdinSource, context: Context) -> Source:
    from logfwd.sources.stdin import Stdin

    stdin = context.handle.front.keep("stdin", lambda: Stdin(max_record_bytes=context.max_record_bytes))
    stdin.max_record_bytes, stdin.settings, stdin.count = context.max_record_bytes, settings, context.count_records
    return stdin


def _http(_: HttpSource, context: Context) -> Source:
    from logfwd.sources.http.source import Requests

    return Requests(context.handle)


def _syslog(_: SyslogSource, context: Context) -> Source:
    from logfwd.sources.syslog.inbox import SyslogMessages

    return SyslogMessages(context.handle, context.block_bytes)


_MAKERS: Mapping[type, Callable[[Any, Context], Source]] = {
    FileSource: _file,
    StdinSource: _stdin,
    HttpSource: _http,
    SyslogSource: _syslog,
}
