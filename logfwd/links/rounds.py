"""Which receiver a stream stays with while none can serve it. Decides; reads no clock.

Each receiver is asked once, with a link of its own; when all have said that they cannot serve, the stream stays with
the last one and lets it hold its answer, so that it hears at once of the sink's return. Once a minute it asks the
others again.
"""

from __future__ import annotations

ROUND_SECONDS = 60.0


class Rounds:
    """For one stream, over all its links."""

    def __init__(self, receivers: int) -> None:
        self._receivers = receivers
        self._asked = 0
        """How many could not serve, one after the other."""
        self._stays_since = 0.0

    @property
    def may_wait(self) -> bool:
        """True if the receiver may hold its answer, since there is no other that is to be asked first."""
        return self._receivers == 1 or self._asked >= self._receivers

    def cannot_serve(self, now: float) -> bool:
        """The receiver of the link cannot serve; True if it is to be left for the next one."""
        if self._receivers == 1:
            return False
        if self._asked < self._receivers:
            self._asked += 1
            self._stays_since = now
            return self._asked < self._receivers
        if now - self._stays_since < ROUND_SECONDS:
            return False
        self._asked = 1
        return True

    def no_link(self) -> None:
        """The next receiver could not be reached: on a round that counts as not serving."""
        if 0 < self._asked < self._receivers:
            self._asked += 1

    def serves(self) -> None:
        """A receiver has opened a run."""
        self._asked = 0
