"""Rows of text as aligned columns, for results that people read and scripts may cut; text of peers made harmless."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def aligned(rows: Sequence[Sequence[str]], *, numbers_from: int) -> Iterator[str]:
    """One line per row, two spaces between columns; those from `numbers_from` on are aligned on the right."""
    rows = [[harmless(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.ljust(width) if number < numbers_from else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def show_bytes(count: float) -> str:
    """A size in the unit that reads well."""
    if count < 1000:
        return f"{count:.0f} B"
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 1000:
            return f"{count:.2f} {unit}"
    return f"{count / 1000:.2f} TB"


def show_seconds(seconds: float) -> str:
    """A duration in the unit that reads well, such as an age."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    for unit, size, most in (("min", 60, 120), ("h", 3600, 48)):
        if seconds < most * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def harmless(text: str, *, keep: str = "") -> str:
    """Text of others for people: what is not printable, such as an escape sequence, is spelled out.

    `keep`: unprintable characters that stay, such as newlines.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in keep else _spelled(each) for each in text)


def _spelled(character: str) -> str:
    return character.encode("unicode_escape").decode()
