"""What all sessions of a receiver share. Its memory of forwarders only serves alarms; no decision depends on it."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Protocol

from logreceiver.config import ReceiverConfig
from logreceiver.ledger.writer import Ledger
from logreceiver.links.budget import Budget
from logreceiver.links.conduct import Register
from logreceiver.links.convoy import Convoy
from logreceiver.links.grants import Grants
from logreceiver.links.meanwhile import Meanwhile
from logreceiver.links.patience import Patience
from logreceiver.metrics import ReceiverMetrics
from logreceiver.posture import Posture
from logreceiver.sinks import Sink
from streams.config.units import KIB
from streams.errors import Code
from streams.security.revocation import NONE, Revoked
from streams.sparing import Sparing
from streams.turns import Turns

WAITING_BYTES = 48 * KIB
"""What a link takes whose batch waits for memory: its first record, a part of the next one, and room for both."""


class Endable(Protocol):
    """A session, to the other sessions: it can be asked to end."""

    def end(self, code: Code, text: str) -> None: ...


class Boots:
    """The last boots of each forwarder and stream. A, B, A means two forwarders with copies of one state directory."""

    MAX_KEYS = 10_000

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[str, str, str], tuple[str, ...]] = OrderedDict()

    def alternate(self, key: tuple[str, str, str], boot_id: str) -> bool:
        """Note a boot; True if it returns after another one had taken its place."""
        before = self._seen.pop(key, ())
        self._seen[key] = before if before[-1:] == (boot_id,) else (*before[-1:], boot_id)
        if len(self._seen) > self.MAX_KEYS:
            self._seen.popitem(last=False)
        return len(before) > 1 and before[0] == boot_id and before[-1] != boot_id


@dataclass
class Shared:
    """What all sessions of a receiver share."""

    config: ReceiverConfig
    sink: Sink
    grants: Grants
    metrics: ReceiverMetrics
    ledger: Ledger | None = None
    revoked: Revoked = NONE
    sessions: dict[tuple[str, str, str], Endable] = field(default_factory=dict)
    """The newest session of each `Guest.key`."""
    boots: Boots = field(default_factory=Boots)
    posture: Posture = field(default_factory=Posture)
    turns: Turns = field(default_factory=Turns)
    """For what links ask beyond their share."""
    greetings: Turns = field(default_factory=lambda: Turns(rests=False))
    """For links that are to be welcomed: whoever comes back after a restart should not wait longer than it must."""
    convoy: Convoy = field(default_factory=Convoy)
    """For batches beyond the share of their identity."""
    register: Register = field(default_factory=Register)
    meanwhile: Meanwhile = field(default_factory=Meanwhile)
    patience: Patience = field(default_factory=Patience)
    sparing: Sparing = field(default_factory=Sparing)
    """For log lines that peers can cause."""

    def __post_init__(self) -> None:
        self.budget = Budget(self.config.limits.max_memory_bytes, waiting_bytes=WAITING_BYTES)

    def take(self, config: ReceiverConfig, grants: Grants, revoked: Revoked) -> None:
        """Use these from now on."""
        self.config, self.grants, self.revoked = config, grants, revoked
        self.budget.limit(config.limits.max_memory_bytes)
