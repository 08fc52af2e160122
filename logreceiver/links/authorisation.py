"""Which identity may write which stream, in which mode, and to which topic.

The identity comes from the peer's certificate; everything else in HELLO is only a request. A name that [[deny]] matches
has no rights at all. Else the first [[allow]] rule that matches identity and stream decides, also about the mode: a
later rule cannot give what a narrower one before it withholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

import msgspec

from logreceiver.config import Allow, Deny, Drain
from streams.errors import Code

RESERVED = "only receivers may write the ledger's topic"


class Permit(msgspec.Struct, frozen=True):
    """A stream is allowed: which of the peer's names allows it, and its topic."""

    identity: str
    topic: str
    drains: tuple[Drain, ...] = ()
    """Topics of old runs."""

    def covers(self, topic: str, day: str) -> bool:
        """Whether a run of this topic may be continued on a day, such as "2027-01-31"."""
        return topic == self.topic or any(topic == drain.topic and day <= drain.until for drain in self.drains)


class Denied(Exception):
    """A stream is not allowed; the text names what is missing and may be shown to the peer."""

    def __init__(self, text: str, code: Code = Code.NOT_ALLOWED) -> None:
        super().__init__(text)
        self.code = code


class Verdict(msgspec.Struct, frozen=True):
    """An open link has to end, and what its forwarder is told."""

    code: Code
    text: str
    may_return: bool = False
    """Whether its next link will be welcomed."""

    @property
    def at_once(self) -> bool:
        """Whether the forwarder was shut out; else it is asked to leave first, and may come back."""
        return self.code is Code.REVOKED

    @property
    def takes_rights(self) -> bool:
        """Whether the rules allow this stream no more."""
        return self.code is Code.NOT_ALLOWED and not self.may_return


class Rule(NamedTuple):
    """The rule that decides on a stream: its place in the configuration, and the name of the peer that it matches."""

    place: int
    allow: Allow
    identity: str


def rule_of(allow: Sequence[Allow], identities: Sequence[str], stream: str) -> Rule | None:
    """The first that matches."""
    for place, rule in enumerate(allow):
        identity = next((name for name in identities if fnmatchcase(name, rule.identity)), None)
        if identity is not None and any(fnmatchcase(stream, pattern) for pattern in rule.streams):
            return Rule(place, rule, identity)
    return None


def authorise(
    allow: Sequence[Allow],
    identities: Sequence[str],
    stream: str,
    mode: str,
    *,
    deny: Sequence[Deny] = (),
    reserved: str = "",
) -> Permit:
    """Decide on a HELLO; raises Denied. `reserved`: the topic that only receivers write."""
    if not identities:
        raise Denied("the certificate names no identity (URI or DNS name)")
    for name in identities:
        if any(fnmatchcase(name, rule.identity) for rule in deny):
            raise Denied(f"{name} is shut out", Code.REVOKED)
    found = rule_of(allow, identities, stream)
    if found is None:
        raise Denied(f"{identities[0]} may not write stream {stream!r}")
    rule, identity = found.allow, found.identity
    if mode not in rule.modes:
        raise Denied(f"{identity} may write stream {stream!r} in mode {', '.join(rule.modes)}, not {mode!r}")
    topic = _named(rule.topic, stream)
    if topic == reserved:
        raise Denied(RESERVED)
    drains = tuple(Drain(topic=_named(each.topic, stream), until=each.until) for each in rule.drains)
    return Permit(identity, topic, drains)


def _named(topic: str, stream: str) -> str:
    return topic.replace("{stream}", stream)


def judge(
    identity: str,
    topic: str,
    allow: Sequence[Allow],
    identities: Sequence[str],
    stream: str,
    mode: str,
    *,
    deny: Sequence[Deny] = (),
    reserved: str = "",
) -> Verdict | None:
    """Why a link that was opened for an identity and a topic has to end under these rules; None if it may stay."""
    try:
        now = authorise(allow, identities, stream, mode, deny=deny, reserved=reserved)
    except Denied as denied:
        return Verdict(denied.code, str(denied))
    if (now.identity, now.topic) != (identity, topic):
        text = f"{now.identity} writes to topic {now.topic} by now; greet again"
        return Verdict(Code.NOT_ALLOWED, text, may_return=True)
    return None
