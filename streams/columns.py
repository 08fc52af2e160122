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


def harmless(text: str, *, keep: str = "") -> str:
    """Text of others for people: what is not printable, such as an escape sequence, is spelled out.

    `keep`: unprintable characters that stay, such as newlines.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in keep else _spelled(each) for each in text)


def _spelled(character: str) -> str:
    return character.encode("unicode_escape").decode()
