"""Which identity may write which stream, in which mode, and to which topic.

The identity comes from the peer's certificate; everything else in HELLO is only a request. The first rule that matches
identity, stream and mode decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import msgspec

from logreceiver.config import Allow


class Permit(msgspec.Struct, frozen=True):
    """A stream is allowed: which of the peer's names allows it, and its topic."""

    identity: str
    topic: str


class Denied(Exception):
    """A stream is not allowed; the text names what is missing and may be shown to the peer."""


def authorise(rules: Sequence[Allow], identities: Sequence[str], stream: str, mode: str) -> Permit:
    """Decide on a HELLO; raises Denied."""
    if not identities:
        raise Denied("the certificate names no identity (URI or DNS name)")
    wrong_mode: Allow | None = None
    for rule in rules:
        identity = next((name for name in identities if fnmatchcase(name, rule.identity)), None)
        if identity is None or not any(fnmatchcase(stream, pattern) for pattern in rule.streams):
            continue
        if mode in rule.modes:
            return Permit(identity, rule.topic.replace("{stream}", stream))
        wrong_mode = rule
    if wrong_mode is not None:
        allowed = ", ".join(wrong_mode.modes)
        raise Denied(f"{identities[0]} may write stream {stream!r} in mode {allowed}, not {mode!r}")
    raise Denied(f"{identities[0]} may not write stream {stream!r}")
