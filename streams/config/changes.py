"""Configurations compared, and named, and what a reload answers; no I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from typing import Literal

import msgspec

from streams.config.toml import spelling


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a reload; each program adds what it does with its streams or links."""

    outcome: Literal["taken", "checked", "refused"]
    digest: str = ""
    """Names the new configuration; "" if it could not be read."""
    taken: tuple[str, ...] = ()
    """Key paths of what changed."""
    waits: tuple[str, ...] = ()
    """Key paths of what changed and waits for a restart."""
    reason: str = ""
    problems: tuple[str, ...] = ()
    remedy: str = ""


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
