"""What every hop does with the result of a handshake: log it, and judge it by the mode before any data is sent."""

from __future__ import annotations

from typing import Protocol

from structlog.typing import FilteringBoundLogger

from streams.errors import HandshakeFailed, PolicyViolation
from streams.security import modes
from streams.security.endpoint import Facts
from streams.security.modes import Mode


class Counter(Protocol):
    """A counter with labels."""

    def labels(self, *values: str) -> Counter: ...

    def inc(self) -> None: ...


class Alarms(Protocol):
    """The counters that a judgement raises; the metrics of both programs have them."""

    @property
    def policy_violations(self) -> Counter: ...

    @property
    def downgrades(self) -> Counter: ...


def log_complete(log: FilteringBoundLogger, facts: Facts, *, more: int = 0) -> None:
    """Log what a handshake negotiated, and how many more there were. `log` carries the names of the link."""
    log.info("handshake complete", more=more, **facts.log_fields())


def log_failed(log: FilteringBoundLogger, error: HandshakeFailed, *, more: int = 0) -> None:
    """Log why a handshake failed, on which side, what was known of it by then, and how many more there were."""
    log.warning("handshake failed", reason=error.reason, detail=str(error), alert=error.alert, more=more, **error.seen)


def judge(mode: Mode, facts: Facts, alarms: Alarms, log: FilteringBoundLogger, *, stream: str) -> None:
    """Raise PolicyViolation, counted, for a link that gives less than the mode demands; report a downgrade."""
    try:
        modes.check(mode, facts)
    except PolicyViolation:
        alarms.policy_violations.labels(stream, "weaker_than_mode").inc()
        raise
    if modes.is_downgrade(mode, facts.group):
        alarms.downgrades.labels(stream, facts.group).inc()
        log.warning("downgrade accepted", group=facts.group, wanted=mode.groups[0])
