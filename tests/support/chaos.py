"""How much of what could be tried is tried: all of it in `make chaos` (CHAOS=1), samples in `make test`."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from typing import TypeVar

CHAOS = os.environ.get("CHAOS") == "1"
FEW = 100

T = TypeVar("T")


def sampled(cases: Sequence[T]) -> Sequence[T]:
    """A third of many cases, another one with another seed of the run; all of a few, and in chaos all of them."""
    return cases if CHAOS or len(cases) <= FEW else cases[random.randrange(3) :: 3]
