"""What syslog listeners lose or refuse: counted for each one, logged now and then."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import structlog

from logfwd.clocks import clock

LOG_SECONDS = 10.0
"""At most one event for each stream and reason in this time: a flood of messages must not become a flood of ours."""

REMEDIES = {
    "no_room": "see why the stream is full or stopped, or raise max_buffer_bytes",
    "receive_queue": "raise the limit net.core.rmem_max, or use tcp",
    "too_long": "raise max_message_bytes, or send shorter messages",
}

log = structlog.get_logger("logfwd.sources.syslog")


class Counters(NamedTuple):
    """Called with stream, reason, and how many messages were dropped; with stream and reason of an ended connection."""

    dropped: Callable[[str, str, int], None]
    ended: Callable[[str, str], None]


class Losses:
    """The dropped messages and ended connections of one stream."""

    def __init__(self, stream: str, counters: Counters) -> None:
        self._stream, self._counters = stream, counters
        self._unlogged: Counter[str] = Counter()
        self._quiet_until: dict[str, float] = {}

    def dropped(self, reason: str, messages: int) -> None:
        """Messages that were sent and are not kept."""
        self._counters.dropped(self._stream, reason, messages)
        self._unlogged[reason] += messages
        if self._may_log(reason):
            count = self._unlogged.pop(reason)
            log.warning("messages dropped", stream=self._stream, reason=reason, messages=count, remedy=REMEDIES[reason])

    def ended(self, reason: str, peer: str) -> None:
        """A connection that was refused, or ended in the middle of a message."""
        self._counters.ended(self._stream, reason)
        if self._may_log(f"connection {reason}"):
            log.warning("client refused", stream=self._stream, reason=reason, peer=peer)

    def _may_log(self, what: str) -> bool:
        now = clock()
        if now < self._quiet_until.get(what, 0.0):
            return False
        self._quiet_until[what] = now + LOG_SECONDS
        return True
