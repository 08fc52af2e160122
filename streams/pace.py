"""How often something may happen. No I/O; time is an argument."""

from __future__ import annotations


class Bucket:
    """Allows `rate` a second on average, and `burst` at a time; of what exceeds that, a burst more is remembered."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate, self._burst = rate, burst
        self._left, self._at = burst, now

    def take(self, amount: float, now: float) -> float:
        """Take this much in any case; returns how many seconds too early that is."""
        self._left = min(self._left + self.rate * (now - self._at), self._burst)
        self._left = max(self._left - amount, -self._burst)
        self._at = now
        return max(-self._left / self.rate, 0.0)

    def allows(self, now: float) -> bool:
        """Take one, if it is not too early for it."""
        if self.take(0, now) or self._left < 1:
            return False
        self._left -= 1
        return True
