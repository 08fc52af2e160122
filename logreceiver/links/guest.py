"""Who is on a link that was welcomed."""

from __future__ import annotations

import uuid
from typing import Any

import msgspec

from logreceiver.posture import Account
from streams.security.endpoint import Facts
from streams.wire import messages as m


class Guest(msgspec.Struct, frozen=True):
    """A forwarder with the stream it may write: what it said (`hello`), and what the receiver found."""

    hello: m.Hello
    identity: str
    """The name in its certificate that a rule allowed."""
    facts: Facts
    peer: str
    """Where it is."""
    topic: str
    """Where new runs go; it is made with the first one."""
    label: str
    """The stream's name in metrics."""
    account: Account
    """Where its bytes are counted for the posture."""
    session_id: str = msgspec.field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def key(self) -> tuple[str, str, str]:
        """Only one link at a time may have this key."""
        return self.identity, self.hello.forwarder_id, self.hello.stream

    def describe(self) -> dict[str, Any]:
        """What an operator sees of it."""
        return {
            "identity": self.identity,
            "peer": self.peer,
            "mode": self.hello.mode,
            **{name: getattr(self.facts, name) for name in ("group", "version", "cipher", "authentication", "stack")},
            "topic": self.topic,
            "certificate_expires": self.facts.expires,
        }
