"""What a running receiver takes of a new configuration, and what waits for a restart; no I/O.

Everything is taken but what was bound or opened at the start: the admin address, the control socket, and where the
sink keeps its data.
"""

from __future__ import annotations

import msgspec

from logreceiver.config import ReceiverConfig
from logreceiver.sinks.settings import AnySink
from streams.config.changes import differences

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
    return Taking(merged, tuple(differences(old, merged)), tuple(differences(merged, new)))


def _sink(old: AnySink, new: AnySink) -> AnySink:
    if type(old) is not type(new):
        return old
    return msgspec.structs.replace(old, **{name: getattr(new, name) for name in new.live})
