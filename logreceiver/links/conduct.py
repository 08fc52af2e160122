"""What the receiver remembers of each identity: how fast it may go, how it has behaved. No I/O; time is an argument.

Nothing but fairness depends on it: it may be forgotten at any time, and is bounded.
"""

from __future__ import annotations

from collections import OrderedDict

from streams.config.units import KIB, MIB
from streams.pace import Bucket

FIRST_PENALTY_SECONDS = 1.0
MOST_PENALTY_SECONDS = 60.0
MOST_AT_ONCE_BYTES = 16 * MIB
FORGIVEN_SECONDS = 300.0
"""Who has kept the rules for so long begins anew."""


class Conduct:
    """One identity's, over all its links."""

    RUNS_PER_SECOND, RUNS_AT_ONCE = 20.0, 100.0
    """Questions about runs cost the sink as much as batches. A forwarder asks one for each refusal and each boot."""
    TOPICS_PER_SECOND, TOPICS_AT_ONCE = 8.0, 32.0
    """A forwarder asks for one for each new stream."""
    BATCHES_PER_SECOND, BATCHES_AT_ONCE = 50.0, 50.0
    """More small ones than these are read in turns with those of other identities."""
    SMALL_BYTES = 64 * KIB
    """Batches that cost more by their number than by their bytes."""
    LINKS_OVER = 8.0
    """Seconds over which an identity may make as many new links as it may have; twice as many at once."""

    def __init__(self, now: float) -> None:
        self.runs = Bucket(self.RUNS_PER_SECOND, self.RUNS_AT_ONCE, now)
        self.topics = Bucket(self.TOPICS_PER_SECOND, self.TOPICS_AT_ONCE, now)
        self._batches = Bucket(self.BATCHES_PER_SECOND, self.BATCHES_AT_ONCE, now)
        self._bytes: Bucket | None = None
        self._links: Bucket | None = None
        self._streams: set[str] = set()
        self._breaches = 0
        self._breached_at = now
        self._served_from = now

    def early(self, size: int, most_per_second: int | None, now: float) -> float:
        """How many seconds too early it sends this many bytes."""
        if most_per_second is None:
            return 0.0
        if self._bytes is None or self._bytes.rate != most_per_second:  # a reload may change it
            self._bytes = Bucket(most_per_second, max(most_per_second, MOST_AT_ONCE_BYTES), now)
        return self._bytes.take(size, now)

    def is_ahead(self, size: int, now: float) -> bool:
        """True if this batch, of so many bytes, is one more than its share."""
        return self._batches.take(size < self.SMALL_BYTES, now) > 0

    def early_link(self, most_links: int, now: float) -> float:
        """How many seconds too early its new link comes; it may have `most_links` at a time."""
        rate = most_links / self.LINKS_OVER
        if self._links is None or self._links.rate != rate:  # a reload may change it
            self._links = Bucket(rate, 2.0 * most_links, now)
        return self._links.take(1, now)

    def may_use(self, stream: str, most: int) -> bool:
        """Whether it may write a stream of this name: one of the first ones since it is known here."""
        if stream not in self._streams and len(self._streams) >= most:
            return False
        self._streams.add(stream)
        return True

    def breached(self, now: float) -> None:
        """A link of the identity was ended because it broke a rule."""
        if now - self._breached_at > FORGIVEN_SECONDS:
            self._breaches = 0
        pause = min(FIRST_PENALTY_SECONDS * 2.0 ** min(self._breaches, 10), MOST_PENALTY_SECONDS)
        self._breaches, self._breached_at, self._served_from = self._breaches + 1, now, now + pause

    def penalty(self, now: float) -> float:
        """For how many seconds its next link has to wait."""
        return max(self._served_from - now, 0.0)


class Register:
    """The conduct of the identities that were here last."""

    MOST = 10_000

    def __init__(self) -> None:
        self._known: OrderedDict[str, Conduct] = OrderedDict()

    def of(self, identity: str, now: float) -> Conduct:
        """An identity's conduct, which begins well."""
        conduct = self._known.get(identity)
        if conduct is None:
            conduct = self._known[identity] = Conduct(now)
            if len(self._known) > self.MOST:
                self._known.popitem(last=False)
        self._known.move_to_end(identity)
        return conduct
