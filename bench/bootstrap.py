"""Intervals and verdicts of comparisons whose sides took turns.

A round gives each side some values (durations, bytes, CPU seconds) and each side's figure of that round, its median for
example. Rounds are what is resampled (Efron 1979, the percentile bootstrap): values within a round have the same
neighbours on the machine and are not independent, rounds are nearly so. The two sides of a round stay together, so what
slowed the machine down slowed both.

With few rounds the plain percentile interval is too narrow: resampled means spread by √((n−1)/n) too little, and by a
normal, not by Student's t. Its tails are taken further out by as much (the expanded percentile interval of Hesterberg,
"What Teachers Should Know About the Bootstrap", 2015, §5.3). No interval reaches beyond the rounds themselves, so
fewer than `FEWEST` never show a difference: of 8 fair coins, all fall alike once in 128 times.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

RESAMPLES = 4000
FEWEST = 8
INTERVAL = 0.95
VERDICT = 0.99
"""Stricter than what is printed: a thing beside itself is found different once in a hundred times."""


class Estimate(NamedTuple):
    """A figure and the interval that holds it with the confidence that was asked for."""

    value: float
    low: float
    high: float

    def told(self, form: str = ".2f", between: str = " ") -> str:
        """1.08 [1.06 … 1.11]."""
        return f"{self.value:{form}}{between}[{self.low:{form}} … {self.high:{form}}]"


def estimate(
    rounds: Sequence[float],
    *,
    confidence: float = INTERVAL,
    middle: Callable[[Sequence[float]], float] = statistics.median,
    seed: int = 0,
) -> Estimate:
    """The middle of the rounds' figures; as wide as can be with fewer than two."""
    if len(rounds) < 2:
        return Estimate(middle(rounds), -math.inf, math.inf)
    drawn = random.Random(seed)
    found = sorted(middle(drawn.choices(rounds, k=len(rounds))) for _ in range(RESAMPLES))
    tail = round(_tail(confidence, len(rounds)) * RESAMPLES)
    return Estimate(middle(rounds), found[tail], found[-1 - tail])


def _tail(confidence: float, rounds: int) -> float:
    """Share of resamples beyond each end of the interval. Student's t by Abramowitz and Stegun, 26.7.5."""
    z, n = statistics.NormalDist().inv_cdf((1 + confidence) / 2), rounds - 1
    t = z + (z**3 + z) / (4 * n) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
    t += (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
    return statistics.NormalDist().cdf(-t * math.sqrt(rounds / n))


def ratio(bases: Sequence[float], others: Sequence[float], *, confidence: float = INTERVAL, seed: int = 0) -> Estimate:
    """How many times the base the other is: the geometric mean of the rounds' ratios. All figures are positive."""
    logs = [math.log(other / base) for base, other in zip(bases, others, strict=True)]
    found = estimate(logs, confidence=confidence, middle=statistics.fmean, seed=seed)
    return Estimate(math.exp(found.value), math.exp(found.low), math.exp(min(found.high, 700)))


def verdict(
    bases: Sequence[float], others: Sequence[float], *, seed: int = 0
) -> Literal["no difference", "more", "less"]:
    """Whether the other side is shown to be more or less than the base, at the confidence of `VERDICT`."""
    found = ratio(bases, others, confidence=VERDICT, seed=seed)
    if len(bases) < FEWEST or found.low <= 1 <= found.high:
        return "no difference"
    return "more" if found.value > 1 else "less"
