"""The arithmetic behind every figure that logbench prints."""

from __future__ import annotations

import math
import os
import time

import pytest

from bench.figures.measure import Sampler, Usage, ages_ms, percentile, slope_per_minute


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1), (0.5, 50), (0.99, 99), (0.999, 100), (1.0, 100)])
def test_a_percentile_is_a_value_that_was_measured(share: float, expected: float) -> None:
    assert percentile(range(100, 0, -1), share) == expected


def test_no_values_have_no_percentile() -> None:
    assert math.isnan(percentile([], 0.5))


def test_the_slope_is_that_of_the_second_half_alone() -> None:
    warming = [(second, 10.0 * second) for second in range(60)]
    steady = [(second, 600.0 + 0.5 * second) for second in range(60, 120)]
    assert slope_per_minute(warming + steady) == pytest.approx(30.0)


def test_noise_around_a_level_has_no_slope() -> None:
    assert slope_per_minute([(second, 90.0 + second % 2) for second in range(400)]) == pytest.approx(0.0, abs=0.01)


def test_two_points_have_no_second_half_to_judge() -> None:
    assert math.isnan(slope_per_minute([(0.0, 1.0), (1.0, 2.0)]))


def test_a_record_ages_from_when_it_was_due_not_from_when_it_could_be_written() -> None:
    """Ten a second, stored in time but for a stall of a second: every record that waited for it counts."""
    in_time = [(100.0 * number + 5, 1) for number in range(10)]
    after_stall = [(2_000.0, 10)]
    ages = ages_ms([*in_time, *after_stall], start_ms=0, records_per_second=10)
    assert ages[:10] == pytest.approx([5.0] * 10)
    assert ages[10:] == pytest.approx([1_000.0 - 100 * number for number in range(10)])


def test_usage_is_what_the_kernel_counts() -> None:
    before, deadline = Usage.of(os.getpid()), time.process_time() + 0.05
    while time.process_time() < deadline:
        pass
    after = Usage.of(os.getpid())
    assert 0.03 <= after.cpu_seconds - before.cpu_seconds <= 0.5
    assert 1 < after.rss_mb <= after.peak_rss_mb


def test_a_sampler_samples_at_once_and_ends_with_its_block() -> None:
    with Sampler({"me": os.getpid(), "none": 2**22 + 1}) as sampler:
        pass
    assert len(sampler.samples["me"]) == 1
    assert sampler.samples["none"] == []
