"""Says what became of numbered records: it reads a topic with Kafka's own consumer and knows nothing of the product."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One stream's records: numbered from 0, each to be stored once, in order."""

    stream: str
    sent: int
    stored: int
    missing: int
    twice: int
    out_of_order: int

    @property
    def exact(self) -> bool:
        return self.missing == self.twice == self.out_of_order == 0 and self.stored == self.sent


def judge(stream: str, sent: int, values: Iterable[bytes]) -> Finding:
    """Count what is missing, what is there more than once, and what stands behind a later record."""
    numbers = [int(json.loads(value)["n"]) for value in values]
    seen = Counter(numbers)
    missing = sum(1 for number in range(sent) if number not in seen)
    repeats = sum(count - 1 for count in seen.values())
    highest, late = -1, 0
    for number in numbers:
        late += number < highest
        highest = max(highest, number)
    return Finding(stream, sent, len(numbers), missing, repeats, late - min(repeats, late))
