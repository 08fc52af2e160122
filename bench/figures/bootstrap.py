"""Intervals and verdicts for comparisons whose sides took turns.

A round gives each side some values (durations, bytes, CPU seconds) and one figure per side, for example their median.
The bootstrap resamples rounds (Efron 1979, the percentile bootstrap), because values within a round share the state of
the machine and are not independent, while rounds nearly are. The two sides of a round stay together, so whatever
slowed the machine down slowed both.

With few rounds the plain percentile interval is too narrow: resampled means spread too little by √((n−1)/n), and like a
normal distribution instead of Student's t. The tails are moved outwards to make up for both (the expanded percentile
interval of Hesterberg, "What Teachers Should Know About the Bootstrap", 2015, §5.3). No interval reaches beyond the
rounds themselves, so fewer than `FEWEST` rounds never show a difference: 8 fair coins fall alike once in 128 times.
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
"""Stricter than the printed interval: comparing a thing with itself finds a difference once in a hundred times."""


class Estimate(NamedTuple):
    """A figure and its confidence interval."""

    value: float
    low: float
    high: float

    def text(self, form: str = ".2f", between: str = " ") -> str:
        """For example `1.08 [1.06 … 1.11]`."""
        return f"{self.value:{form}}{between}[{self.low:{form}} … {self.high:{form}}]"


def estimate(
    rounds: Sequence[float],
    *,
    confidence: float = INTERVAL,
    middle: Callable[[Sequence[float]], float] = statistics.median,
    seed: int = 0,
) -> Estimate:
    """The middle of the rounds' figures; the interval is infinite with fewer than two rounds."""
    if len(rounds) < 2:
        return Estimate(middle(rounds), -math.inf, math.inf)
    drawn = random.Random(seed)
    found = sorted(middle(drawn.choices(rounds, k=len(rounds))) for _ in range(RESAMPLES))
    tail = round(_tail(confidence, len(rounds)) * RESAMPLES)
    return Estimate(middle(rounds), found[tail], found[-1 - tail])


def _tail(confidence: float, rounds: int) -> float:
    """Share of resamples beyond each end of the interval. Student's t from Abramowitz and Stegun, 26.7.5."""
    z, n = statistics.NormalDist().inv_cdf((1 + confidence) / 2), rounds - 1
    t = z + (z**3 + z) / (4 * n) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
    t += (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
    return statistics.NormalDist().cdf(-t * math.sqrt(rounds / n))


def ratio(bases: Sequence[float], others: Sequence[float], *, confidence: float = INTERVAL, seed: int = 0) -> Estimate:
    """Other divided by base: the geometric mean of the rounds' ratios. All figures are positive."""
    logs = [math.log(other / base) for base, other in zip(bases, others, strict=True)]
    found = estimate(logs, confidence=confidence, middle=statistics.fmean, seed=seed)
    return Estimate(math.exp(found.value), math.exp(found.low), math.exp(min(found.high, 700)))


def verdict(
    bases: Sequence[float], others: Sequence[float], *, seed: int = 0
) -> Literal["no difference", "more", "less"]:
    """Whether the other side is significantly more or less than the base, at the confidence of `VERDICT`."""
    found = ratio(bases, others, confidence=VERDICT, seed=seed)
    if len(bases) < FEWEST or found.low <= 1 <= found.high:
        return "no difference"
    return "more" if found.value > 1 else "less"
