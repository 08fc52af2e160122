"""Waiting before the next try: doubling from 0.1 s up to 10 s, with jitter, and starting over after a success."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from logfwd.links.backoff import FIRST_SECONDS, MOST_SECONDS, Backoff


def waits(monkeypatch: pytest.MonkeyPatch, share: float, count: int) -> list[float]:
    """Waits of one back-off whose jitter always has this share of its range, 0 to 1."""
    monkeypatch.setattr(random, "uniform", lambda low, high: low + (high - low) * share)
    tries = Backoff()
    return [tries.next() for _ in range(count)]


def test_each_failure_doubles_the_wait_up_to_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    got = waits(monkeypatch, 1.0, 30)
    assert got[:7] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4])
    assert got[7:] == [10.0] * 23
    assert (FIRST_SECONDS, MOST_SECONDS) == (0.1, 10.0)


def test_jitter_takes_off_at_most_half_of_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    longest, shortest = waits(monkeypatch, 1.0, 20), waits(monkeypatch, 0.0, 20)
    assert shortest == pytest.approx([wait / 2 for wait in longest])


def test_forwarders_that_lost_their_links_together_do_not_return_together() -> None:
    firsts = {Backoff().next() for _ in range(50)}
    assert len(firsts) > 40
    assert all(0.05 <= wait <= 0.1 for wait in firsts)


def test_a_success_starts_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda _low, high: high)
    tries = Backoff()
    for _ in range(12):
        tries.next()
    tries.reset()
    assert [tries.next() for _ in range(3)] == pytest.approx([0.1, 0.2, 0.4])


def test_a_night_of_failures_neither_overflows_nor_shortens_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    got = waits(monkeypatch, 1.0, 5000)
    assert got[-1] == 10.0
    assert all(one <= other for one, other in pairwise(got))
