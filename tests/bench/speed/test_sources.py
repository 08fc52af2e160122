"""`logbench sources`: every input end to end, as small as possible; what rounds say of one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from bench.speed.inputs import INPUTS, PLAIN, inputs_of
from bench.speed.sources import compared, sources

RECORDS = 1000


@pytest.mark.slow
def test_every_input_delivers_all_its_records_and_is_compared_with_the_file() -> None:
    answer = CliRunner().invoke(sources, ["--records", str(RECORDS), "--rounds", "2", "--json"])
    assert answer.exit_code == 0, answer.output
    rows = {row["input"]: row for row in json.loads(answer.stdout)["rows"]}
    assert list(rows) == [each.stream for each in INPUTS]
    for each in INPUTS:
        row = rows[each.stream]
        assert row["records"] + row["lost"] == RECORDS // each.share
        assert each.loses or not row["lost"]
        assert row["ratio"]["low"] <= row["ratio"]["value"] <= row["ratio"]["high"]
        assert 0 < row["batch_duration_p50_ms"] <= row["batch_duration_p99_ms"]
        assert ("answered_p99_ms" in row) == (each.kind == "http")
    assert rows["json"]["ratio"]["value"] == 1


def _run(cpu: float) -> dict[str, Any]:
    return {"cpu_seconds_per_gb": {"forwarder": cpu, "receiver": 1.0}, "records": 10}


def test_the_ratio_pairs_the_rounds_of_an_input_with_those_of_the_file() -> None:
    row = compared(INPUTS[1], [_run(4.4), _run(8.8)], [_run(4.0), _run(8.0)])
    assert row["ratio"]["value"] == pytest.approx(1.1)
    assert row["ratio"]["low"] == pytest.approx(row["ratio"]["high"])
    assert row["cpu_seconds_per_gb"]["forwarder"] == pytest.approx(6.6)


def test_the_file_that_others_are_compared_with_is_always_measured() -> None:
    assert inputs_of(["udp", "cri"]) == [PLAIN, *(each for each in INPUTS if each.stream in ("cri", "udp"))]
    assert inputs_of([]) == list(INPUTS)
