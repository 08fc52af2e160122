"""Which reader makes records of the lines of a source."""

from __future__ import annotations

from logfwd.sources.formats import containers
from logfwd.sources.formats.joined import JoinedLines, LongRecords, Rules
from logfwd.sources.formats.patterns import compile_pattern
from logfwd.sources.formats.text import Count, TextLines
from logfwd.sources.settings import LineSource

_PARSERS = {"text": None, "cri": containers.cri, "docker": containers.docker}

Lines = TextLines | JoinedLines


class LineFormat:
    """The format of a source: makes a reader for each of its files."""

    def __init__(self, settings: LineSource, max_record_bytes: int, count: Count) -> None:
        self._format, self._count, self._max_record_bytes = settings.format, count, max_record_bytes
        self.has_readers = settings.format in _PARSERS
        """False if each line is a record already."""
        multiline = settings.multiline
        self.wait_seconds = multiline.wait_seconds if multiline is not None else None
        """How long a record stays open although it may be whole; None if none is ever open so."""
        self._rules: Rules | None = None
        self._long = LongRecords()
        if not self.has_readers or (settings.format == "text" and multiline is None):
            return
        begins, max_lines, max_bytes = None, 1, max_record_bytes
        if multiline is not None:
            search = compile_pattern(multiline.start or multiline.continue_ or "")
            begins = search if multiline.start is not None else lambda line: not search(line)
            max_lines, max_bytes = multiline.max_lines, min(multiline.max_bytes, max_record_bytes)
        self._rules = Rules(_PARSERS[settings.format], begins, max_lines, max_bytes, max_record_bytes)

    def reader(self, origin: object, added_bytes: int = 0) -> Lines | None:
        """A reader for one file, or for standard input; later, `added_bytes` are added to each of its records."""
        if not self.has_readers:
            return None
        most = self._max_record_bytes - added_bytes
        if self._rules is None:
            return TextLines(most, self._count, origin)
        rules = self._rules._replace(max_bytes=min(self._rules.max_bytes, most), max_record_bytes=most)
        return JoinedLines(rules, self._count, origin, self._long)
