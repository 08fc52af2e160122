"""Configurations compared, and named; no I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator

import msgspec

from streams.config.toml import spelling


def digest(config: msgspec.Struct) -> str:
    """A short name of a configuration, the same for equal ones; says nothing of the files that it names."""
    return hashlib.sha256(msgspec.json.encode(config, enc_hook=str)).hexdigest()[:12]


def differences(
    old: msgspec.Struct, new: msgspec.Struct, table: str = "", *, leave_out: Collection[str] = ()
) -> Iterator[str]:
    """Key paths of the values that differ; a table that is new, gone or of another type is one value."""
    for field in msgspec.structs.fields(new):
        before, after = getattr(old, field.name), getattr(new, field.name)
        key = f"{table}.{spelling(field.name)}" if table else spelling(field.name)
        if key in leave_out:
            continue
        if isinstance(after, msgspec.Struct) and type(before) is type(after):
            yield from differences(before, after, key)
        elif before != after:
            yield key
