"""A block of lines, or of records whose ends are known -> records as they are (`format = "raw"`).

Nothing is validated, skipped or changed; only the newline is left out. A line that is longer than `max_record_bytes` is
cut into records of that size, which, joined, are the line.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from logfwd.intake.jsonlines import Lines


def split(block: bytes, *, max_record_bytes: int, ends: Sequence[int] | None = None) -> Lines:
    """The records of a block that ends in a newline, or in the last of `ends`."""
    if ends is not None:
        lines = [block[start:end] for start, end in zip(chain((0,), ends), ends, strict=False)]
    else:
        lines = block.split(b"\n")
        if not lines[-1]:
            lines.pop()  # nothing follows the last newline
    if max(map(len, lines), default=0) <= max_record_bytes:
        return Lines(lines)
    return Lines([piece for line in lines for piece in _pieces(line, max_record_bytes)])


def _pieces(line: bytes, size: int) -> list[bytes]:
    return [line[start : start + size] for start in range(0, len(line), size)] or [line]
