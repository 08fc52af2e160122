"""What a running receiver takes of a new configuration, and what waits for a restart; no I/O.

Everything is taken but what was bound or opened at the start: the admin address, the control socket, and where the
sink keeps its data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import msgspec

from logreceiver.config import ReceiverConfig
from logreceiver.sinks.settings import AnySink
from streams.config.toml import spelling

NEEDS_RESTART = ("admin", "control_socket")


class Taking(msgspec.Struct, frozen=True):
    """`config` is the present one with all that can be taken of the new one; the others are key paths."""

    config: ReceiverConfig
    taken: tuple[str, ...]
    waits: tuple[str, ...]


def take(old: ReceiverConfig, new: ReceiverConfig) -> Taking:
    """Compare two configurations."""
    kept = {name: getattr(old, name) for name in NEEDS_RESTART}
    merged = msgspec.structs.replace(new, **kept, sink=_sink(old.sink, new.sink))
    return Taking(merged, tuple(_differences(old, merged)), tuple(_differences(merged, new)))


def digest(config: ReceiverConfig) -> str:
    """A short name of a configuration, the same for equal ones; says nothing of the files that it names."""
    return hashlib.sha256(msgspec.json.encode(config, enc_hook=str)).hexdigest()[:12]


def _sink(old: AnySink, new: AnySink) -> AnySink:
    if type(old) is not type(new):
        return old
    return msgspec.structs.replace(old, **{name: getattr(new, name) for name in new.live})


def _differences(old: msgspec.Struct, new: msgspec.Struct, table: str = "") -> Iterator[str]:
    """Key paths of the values that differ; a table that is new, gone or of another type is one value."""
    for field in msgspec.structs.fields(new):
        before, after = getattr(old, field.name), getattr(new, field.name)
        key = f"{table}.{spelling(field.name)}" if table else spelling(field.name)
        if isinstance(after, msgspec.Struct) and type(before) is type(after):
            yield from _differences(before, after, key)
        elif before != after:
            yield key
