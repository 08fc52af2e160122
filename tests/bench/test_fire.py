"""`logbench fire`: each flood ends as it should, and the forwarder beside it goes on."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from bench.chaos import deceived
from bench.chaos.fire import fire, judged, memory_fault
from bench.chaos.floods import FLOODS
from tests.support.chaos import CHAOS

CHOSEN = list(FLOODS) if CHAOS else ["pings", "half-said"]
"""All of them in `make chaos`."""


@pytest.mark.slow
def test_floods_end_as_they_should_and_batches_are_stored_meanwhile() -> None:
    arguments = [part for name in CHOSEN for part in ("--flood", name)]
    answer = CliRunner().invoke(fire, [*arguments, "--seconds", "3", "--json"])
    assert answer.exit_code == 0, answer.output
    rows = json.loads(answer.stdout)["rows"]
    assert [row["flood"] for row in rows] == CHOSEN
    assert all(sum(row["outcomes"].values()) > 0 for row in rows)
    assert all(row["batches"]["during"] > 0 for row in rows)


def test_what_is_wrong_with_a_flood_is_said() -> None:
    row = {"title": "flood", "unexpected": ["internal"], "during_ms": [], "decoyed_ms": [1.0]}
    found = judged(row, [1.0])
    assert found["faults"] == ["flood: internal", "flood: nothing was acknowledged"]


def test_unfinished_batches_may_take_the_budget_and_a_fifth_more() -> None:
    rows = [{"flood": "crowd", "peak_rss_mb": 200.0}, {"flood": "crowd-unfinished", "peak_rss_mb": 520.0}]
    assert memory_fault(rows) == []
    rows[1]["peak_rss_mb"] = 530.0
    assert memory_fault(rows) == ["unfinished batches took 530 MB, not 522 MB"]
    assert memory_fault(rows[:1]) == []


@pytest.mark.slow
def test_a_forwarder_survives_a_receiver_that_floods_it_and_ends_in_time() -> None:
    answer = CliRunner().invoke(fire, ["--impostor", "pings", "--seconds", "3", "--json"])
    assert answer.exit_code == 0, answer.output
    (row,) = json.loads(answer.stdout)["deceived"]
    assert row["stop_seconds"] <= deceived.GRACE_SECONDS + deceived.MOST_OVER_SECONDS


def test_what_is_wrong_with_a_forwarder_at_such_a_receiver_is_said() -> None:
    row = {"title": "it", "rss_mb": 60.0, "peak_rss_mb": 150.0, "links": 80, "most_links": 11.0, "stop_seconds": 20.0}
    assert deceived.judged(row)["faults"] == [
        "it: the forwarder's memory grew to 150 MB",
        "it: 80 links",
        "it: the forwarder took 20.0 s to stop",
    ]
