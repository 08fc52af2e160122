"""`logbench throughput` end to end, as small as possible; and how rounds become one line."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from bench.speed.throughput import middle, throughput


@pytest.mark.slow
def test_a_small_run_gives_every_figure_as_json() -> None:
    answer = CliRunner().invoke(throughput, ["--records", "20000", "--sink", "log", "--json"])
    assert answer.exit_code == 0, answer.output
    row = json.loads(answer.stdout)["rows"][0]
    assert row["records"] == 20_000
    assert row["megabytes"] == pytest.approx(11.5, rel=0.05)
    assert row["records_per_second"] == pytest.approx(20_000 / row["seconds"])
    assert row["megabytes_per_second"] == pytest.approx(row["megabytes"] / row["seconds"])
    assert row["share_of_limit"] == pytest.approx(
        row["megabytes_per_second"] / (sum(row["limit_megabytes_per_second"]) / 2)
    )
    for process in ("forwarder", "receiver"):
        assert 0 < row["cpu_seconds_per_gb"][process] < 1000
        assert 20 < row["peak_rss_mb"][process] < 500
    assert 0 < row["batch_duration_p50_ms"] <= row["batch_duration_p99_ms"]


def test_the_middle_of_rounds_is_the_median_of_each_figure() -> None:
    runs = [{"a": value, "each": {"x": -value}, "pair": [value, 2 * value]} for value in (3.0, 1.0, 2.0)]
    assert middle(runs) == {"a": 2.0, "each": {"x": -2.0}, "pair": [2.0, 4.0]}
