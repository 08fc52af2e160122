"""The conclusions that the measuring commands draw from their figures."""

from __future__ import annotations

import pytest

from bench.figures.measure import Sample, Usage
from bench.speed.cost import choices, compare_figure
from bench.speed.sustained import judge, memory
from bench.speed.telemetry_cost import verdict


@pytest.mark.parametrize("what", ["modes", "twin", "spool"])
def test_two_compared_setups_differ_in_one_setting(what: str) -> None:
    base, other = choices(what, "classical", "hybrid").values()
    assert len(set(vars(base).items()) ^ set(vars(other).items())) == 2


def _run(forwarder: float, receiver: float) -> dict[str, object]:
    return {"megabytes": 100.0, "cpu_seconds_per_gb": {"forwarder": forwarder, "receiver": receiver, "broker": 9.0}}


def test_a_comparison_uses_pairs_and_leaves_the_broker_out() -> None:
    bases = [_run(4.0, 1.0), _run(8.0, 2.0), _run(6.0, 1.5)]
    others = [_run(4.4, 1.0), _run(8.8, 2.0), _run(6.6, 1.5)]
    row = compare_figure("both, CPU-s/GB", bases, others)
    assert row["base"] == 7.5
    assert row["ratio"]["value"] == pytest.approx(1.08)
    assert row["ratio"]["low"] == pytest.approx(row["ratio"]["high"])
    assert row["difference"]["value"] == pytest.approx(0.6)
    assert row["difference"]["low"] < 0.6 < row["difference"]["high"]


def test_a_process_that_used_no_measurable_cpu_still_has_a_ratio() -> None:
    assert compare_figure("receiver, CPU-s/GB", [_run(1, 0.0)] * 2, [_run(1, 0.0)] * 2)["ratio"][
        "value"
    ] == pytest.approx(1.0)


@pytest.mark.parametrize(("low", "words"), [(0.96, "4.0%]"), (0.94, "6.0%]")])
def test_telemetry_is_judged_by_the_upper_bound_of_its_cost(low: float, words: str) -> None:
    shown = verdict([{"figure": "MB/s", "ratio": {"value": 0.99, "low": low, "high": 1.01}}])
    assert "1.0% [-1.0%" in shown
    assert words in shown
    assert shown.endswith("met" if low > 0.95 else "not shown to be met")


def _load(percent: float, output: float, rss_mb: float = 90.0) -> dict[str, float]:
    return {
        "percent": percent,
        "offered_records_per_second": percent,
        "records_per_second": output,
        "forwarder_rss_mb": rss_mb,
    }


@pytest.mark.parametrize(
    ("loads", "holds"),
    [
        ([_load(50, 50), _load(100, 100), _load(150, 95)], True),
        ([_load(50, 50), _load(100, 100), _load(150, 85)], False),
        ([_load(50, 40), _load(100, 100), _load(150, 99)], False),
        ([_load(100, 100), _load(150, 120)], True),
        ([_load(50, 50), _load(100, 100), _load(150, 99, rss_mb=130)], False),
    ],
)
def test_back_pressure_holds_if_output_keeps_to_the_offered_load_or_its_peak_and_memory_is_flat(
    loads: list[dict[str, float]], holds: bool
) -> None:
    assert judge(loads, 92.0)["holds"] is holds


def test_memory_is_reported_by_its_peak_and_its_slope() -> None:
    samples = [Sample(second, Usage(second / 2, 50 + second / 60, 200.0)) for second in range(120)]
    (row,) = memory({"forwarder": samples})
    assert row["rss_peak_mb"] == pytest.approx(50 + 119 / 60)
    assert row["rss_slope_mb_per_minute"] == pytest.approx(1.0)
    assert row["core_share"] == pytest.approx(0.5)
