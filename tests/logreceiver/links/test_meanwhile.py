"""What a receiver says was stored in a partition since a batch was first refused."""

from __future__ import annotations

import pytest

from logreceiver.links import meanwhile
from logreceiver.links.meanwhile import Meanwhile

HERE, THERE = ("http", 0), ("http", 1)
ONE, OTHER, THIRD = (1, 0, 0), (2, 0, 0), (3, 0, 0)


def test_only_what_the_partition_stored_since_the_first_refusal_counts() -> None:
    seen = Meanwhile()
    seen.stored(HERE, OTHER)
    assert seen.refused(HERE, ONE) == 0
    seen.stored(THERE, OTHER)
    assert seen.refused(HERE, ONE) == 0
    seen.stored(HERE, OTHER)
    seen.stored(HERE, THIRD)
    assert seen.refused(HERE, ONE) == 2
    assert seen.refused(THERE, ONE) == 0


def test_a_batch_that_was_stored_begins_anew() -> None:
    seen = Meanwhile()
    seen.refused(HERE, ONE)
    seen.stored(HERE, OTHER)
    seen.stored(HERE, ONE)
    assert seen.refused(HERE, ONE) == 0


def test_refused_batches_beyond_the_bound_are_forgotten_the_oldest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meanwhile, "MAX_REFUSED", 2)
    seen = Meanwhile()
    for stamp in (ONE, OTHER, ONE, THIRD):  # the last refusal of OTHER is the oldest
        seen.refused(HERE, stamp)
    seen.stored(HERE, (4, 0, 0))
    assert (seen.refused(HERE, ONE), seen.refused(HERE, THIRD), seen.refused(HERE, OTHER)) == (1, 1, 0)
