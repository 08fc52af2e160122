"""How records are made of the lines of a source's files: by its format, with fields that a file's name adds."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import structs

from logfwd.sources.file.metadata import fields_by_name
from logfwd.sources.file.plain import pread
from logfwd.sources.file.tail import Tail
from logfwd.sources.formats.encodings import FIRST_BYTES, encoding_of
from logfwd.sources.formats.text import Count
from logfwd.sources.lines import LineFormat
from logfwd.sources.longlines import Cuts
from logfwd.sources.position import Block
from logfwd.sources.settings import FileSource


class Records:
    """Makes the readers of lines. `name_of` tells the configured name of a family of files."""

    def __init__(
        self, settings: FileSource, name_of: Callable[[str], str], max_record_bytes: int, count: Count
    ) -> None:
        self._format = LineFormat(settings, max_record_bytes, count)
        self._encoding, self._name_of = settings.encoding, name_of
        self._fields, self._cuts = fields_by_name(settings), Cuts(count)
        self.wait_seconds = self._format.wait_seconds
        """How long a record stays open although it may be whole; None if none is ever open so."""

    def prepare(self, tail: Tail) -> None:
        """Give an open file the reader of its lines, with the state of its position; none if lines are records."""
        tail.cuts = self._cuts
        fields_bytes = len(self._fields_of(tail))
        tail.lines = self._format.reader(tail.key, fields_bytes + 1 if fields_bytes else 0)
        if tail.lines is not None:
            encoding = encoding_of(self._encoding, pread(tail.content, FIRST_BYTES, 0))
            tail.lines.restore(tail.place.state, lambda offset, size: pread(tail.content, size, offset), encoding)

    def _fields_of(self, tail: Tail) -> bytes:
        """What the name of its file adds to each record."""
        return b"" if self._fields is None else self._fields(self._name_of(tail.family))

    def with_fields(self, tail: Tail, block: Block) -> Block:
        """A block of this file with what its name adds."""
        return block if self._fields is None or not block.data else structs.replace(block, fields=self._fields_of(tail))
