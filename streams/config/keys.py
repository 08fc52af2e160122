"""What every key of a configuration file means: keys.toml, of which JSON Schemas and docs/configuration.md are made."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import NamedTuple


class Key(NamedTuple):
    """A key's path in its file, its default as the docs show it, and what it means, in Markdown."""

    key: str
    default: str
    meaning: str


def keys(file: str) -> list[Key]:
    """Those of "logfwd.toml", "streams.d/NAME.toml" or "logreceiver.toml", in the order of the docs."""
    rows = tomllib.loads(Path(__file__).with_name("keys.toml").read_text(encoding="utf-8"))[file]
    return [Key(**row) for row in rows]


def meanings(file: str) -> dict[str, str]:
    """Sentences by key path."""
    return {row.key: row.meaning for row in keys(file)}
