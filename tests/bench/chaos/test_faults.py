"""A failing seed is useful only if it brings the same faults again."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from bench.chaos.faults import KINDS, schedule


def test_a_longer_run_of_a_seed_begins_like_a_shorter_one() -> None:
    short, long = list(schedule(7, 60)), list(schedule(7, 600))
    assert long[: len(short)] == short
    assert list(schedule(8, 60)) != short


def test_every_kind_of_fault_occurs_and_never_two_at_once_on_one_target() -> None:
    faults = list(schedule(1, 1800))
    assert Counter(fault.kind for fault in faults).keys() == KINDS.keys()
    for target in {target for kind in KINDS.values() for target in kind.targets}:
        own = [fault for fault in faults if target in KINDS[fault.kind].targets]
        assert all(first.at + first.seconds <= second.at for first, second in pairwise(own))
