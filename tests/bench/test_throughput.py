"""The instruments: their arithmetic, and one small run of them."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from bench.generate import generate_sized
from bench.measure import slope_per_minute
from bench.throughput import throughput


@pytest.mark.parametrize("record_bytes", [100, 331, 4096])
def test_records_are_of_about_the_size_that_was_asked_for_and_still_json(record_bytes: int) -> None:
    records = list(generate_sized(500, 1, record_bytes))
    assert [json.loads(record)["n"] for record in records] == list(range(500))
    assert 0.7 * record_bytes < sum(map(len, records)) / 500 <= 1.1 * record_bytes


def test_a_slope_is_told_a_minute() -> None:
    assert slope_per_minute([0, 30, 60], [10, 11, 12]) == pytest.approx(2)


def test_a_small_run_tells_every_figure() -> None:
    argv = ["--records", "20000", "--sink", "log", "--twins", "0", "--twins", "1", "--json"]
    done = CliRunner().invoke(throughput, argv, catch_exceptions=False)
    plain, with_twin = json.loads(done.stdout)
    assert (plain["records"], with_twin["job"]["twins"]) == (20_001, 1)
    for figure in ("seconds", "limit_before", "forwarder_cpu_seconds", "forwarder_rss_mb", "batch_duration_p50_ms"):
        assert plain[figure] > 0
