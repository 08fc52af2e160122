"""Writes the tables of docs/configuration.md, from streams/config/keys.toml: `python -m bench.dashboard.configuration`.

A file's section may have several tables: each begins with the key that it begins with on the page.
"""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

from streams.config.keys import Key, keys

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
FILES = ("logfwd.toml", "streams.d/NAME.toml", "logreceiver.toml")
HEAD = "| key | default | meaning |\n|---|---|---|\n"
TABLE = re.compile(re.escape(HEAD) + r"(?:\|.*\n)*")
FIRST_KEY = re.compile(re.escape(HEAD) + r"\| `([^`]+)`")


def written(page: str) -> str:
    """The page with the tables of each file made anew."""
    for file in FILES:
        before, title, rest = page.partition(f"\n## {file}\n")
        section, end, after = rest.partition("\n## ")
        tables = iter(_tables(keys(file), FIRST_KEY.findall(section)))
        page = before + title + TABLE.sub(lambda _, tables=tables: next(tables), section) + end + after  # type: ignore[misc]
    return page


def _tables(rows: list[Key], firsts: list[str]) -> list[str]:
    """A table for each first key, up to the next one's."""
    names = [row.key for row in rows]
    starts = [*(names.index(first) for first in firsts), len(rows)]
    return [HEAD + "".join(map(_row, rows[start:end])) for start, end in pairwise(starts)]


def _row(row: Key) -> str:
    return f"| `{row.key}` | {row.default} | {row.meaning} |\n"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
