"""Intervals contain the true value as often as they claim, and a thing compared with itself is not found different."""

import math
import random
import statistics

import pytest

from bench.figures.bootstrap import FEWEST, estimate, ratio, verdict


def test_one_round_shows_nothing() -> None:
    assert tuple(estimate([5.0])) == (5.0, -math.inf, math.inf)
    assert verdict([1.0], [9.0]) == "no difference"


def test_what_slows_both_sides_of_a_round_does_not_widen_the_ratio() -> None:
    machine = [1.0, 3.0, 1.5, 2.2, 9.0, 1.1, 1.2, 4.0]
    assert tuple(ratio(machine, [1.1 * value for value in machine])) == pytest.approx((1.1, 1.1, 1.1))
    assert verdict(machine, [1.1 * value for value in machine]) == "more"
    assert verdict([1.1 * value for value in machine], machine) == "less"


def test_the_same_seed_gives_the_same_interval() -> None:
    values = [1.0, 2.0, 4.0, 8.0, 9.0]
    assert estimate(values, seed=3) == estimate(values, seed=3)


@pytest.mark.parametrize("rounds", [10, pytest.param(20, marks=pytest.mark.chaos)])
@pytest.mark.parametrize(("confidence", "least", "most"), [(0.95, 180, 198), (0.99, 192, 200)])
def test_the_interval_contains_the_true_value_about_as_often_as_it_claims(
    rounds: int, confidence: float, least: int, most: int
) -> None:
    drawn = random.Random(rounds)
    held = 0
    for trial in range(200):
        logs = [drawn.gauss(0.05, 0.1) for _ in range(rounds)]
        found = ratio([1.0] * rounds, [math.exp(value) for value in logs], confidence=confidence, seed=trial)
        held += found.low <= math.exp(0.05) <= found.high
    assert least <= held <= most


def test_too_few_rounds_show_no_difference() -> None:
    assert verdict([1.0] * (FEWEST - 1), [2.0, 2.1, 2.2, 2.0, 2.1, 2.2, 2.3]) == "no difference"
    assert verdict([1.0] * FEWEST, [2.0, 2.1, 2.2, 2.0, 2.1, 2.2, 2.3, 2.4]) == "more"


def test_a_thing_compared_with_itself_is_rarely_found_different() -> None:
    drawn = random.Random(2)
    sides = [[[math.exp(drawn.gauss(0, 0.2)) for _ in range(20)] for _ in range(2)] for _ in range(60)]
    assert statistics.fmean(verdict(*pair) == "no difference" for pair in sides) >= 0.95
