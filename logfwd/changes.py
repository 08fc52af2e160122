"""What a new configuration changes for a running forwarder; no I/O.

Everything is taken but what was locked or bound at the start: the state directory and the admin address.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import msgspec

from logfwd.config import ForwarderConfig
from logfwd.definition import Stream
from streams.config.changes import differences

NEEDS_RESTART = ("state_dir", "admin")
EVERY_STREAM = ("answer_timeout_seconds",)
"""What the pipelines of all streams are built from."""
EVERY_LINK = ("tls", "receivers", "server_name")
"""What links are made from; pipelines go on."""

Group = tuple[Stream, tuple[Stream, ...]]
"""An original stream and its twins."""


class Change(NamedTuple):
    """`config` is the present one with all that can be taken of the new one; streams are originals, by name."""

    config: ForwarderConfig
    taken: tuple[str, ...]
    """Key paths of logfwd.toml."""
    waits: tuple[str, ...]
    """Key paths of what waits for a restart."""
    started: tuple[str, ...]
    changed: tuple[str, ...]
    """Those that begin again."""
    relinked: tuple[str, ...]
    """Those that go on, over new links."""
    removed: tuple[str, ...]
    twins_gone: tuple[str, ...]

    @property
    def undeclared(self) -> tuple[str, ...]:
        """Streams that are gone, though no file says that they are to go."""
        return tuple(name for name in self.removed if name not in self.config.removed)


def compare(old: ForwarderConfig, new: ForwarderConfig, renewed: Collection[str] = ()) -> Change:
    """What taking the new configuration would do. `renewed`: modes whose files hold something else by now."""
    merged = msgspec.structs.replace(new, **{name: getattr(old, name) for name in NEEDS_RESTART})
    before, after = groups(old), groups(merged)
    everywhere, links = (_differ(old, merged, names) for names in (EVERY_STREAM, EVERY_LINK))
    both = before.keys() & after.keys()
    changed = {name for name in both if everywhere or before[name] != after[name]}
    relinked = both - changed if links else {name for name in both - changed if _modes(after[name]) & {*renewed}}
    twins_gone = _twins(before) - _twins(after)
    return Change(
        merged,
        tuple(differences(old, merged, leave_out=("streams", "removed"))),
        tuple(differences(merged, new)),
        tuple(sorted(after.keys() - before.keys())),
        tuple(sorted(changed)),
        tuple(sorted(relinked)),
        tuple(sorted(before.keys() - after.keys())),
        tuple(sorted(twins_gone)),
    )


def _differ(old: ForwarderConfig, new: ForwarderConfig, names: tuple[str, ...]) -> bool:
    return any(getattr(old, name) != getattr(new, name) for name in names)


def _twins(streams: dict[str, Group]) -> set[str]:
    return {twin.name for _, twins in streams.values() for twin in twins}


def _modes(group: Group) -> set[str]:
    original, twins = group
    return {stream.security for stream in (original, *twins)}


def groups(config: ForwarderConfig) -> dict[str, Group]:
    """Original streams by name, each with its twins."""
    originals = [stream for stream in config.streams if stream.mirror_of is None]
    return {
        original.name: (original, tuple(twin for twin in config.streams if twin.mirror_of == original.name))
        for original in originals
    }
