"""`logbench keys`: a short load is answered, and measured as what it was."""

from __future__ import annotations

import json
import math

import pytest
from click.testing import CliRunner

from bench.speed.keys import keys, share_within


@pytest.mark.slow
def test_every_request_of_a_load_is_answered_and_measured() -> None:
    arguments = ["--rate", "50", "--minutes", "0.05", "--connections", "4", "--sink", "log", "--json"]
    answer = CliRunner().invoke(keys, arguments)
    assert answer.exit_code == 0, answer.output
    (row,) = json.loads(answer.stdout)["rows"]
    assert (row["requests"] + row["unsent"], row["refused"]) == (150, 0)
    assert row["requests"] > 0
    assert 0 < row["answer_p50_ms"] <= row["answer_p99_ms"] <= row["answer_max_ms"]
    assert row["commit_p99_within_ms"] > 0
    assert row["requests_per_batch"] >= 1
    assert row["written_bytes_per_request"] > 0
    assert {each["process"] for each in row["memory"]} == {"forwarder", "receiver"}


def test_a_share_lies_within_the_bound_of_a_bucket_counting_only_what_is_new() -> None:
    before, after = {5.0: 90.0, 10.0: 100.0, math.inf: 100.0}, {5.0: 90.0, 10.0: 199.0, math.inf: 200.0}
    assert share_within(before, after, 0.99) == 10.0
    assert share_within(before, after, 1.0) == math.inf
    assert math.isnan(share_within(after, after, 0.99))
