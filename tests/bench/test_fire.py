"""`logbench fire`: each flood ends as it should, and the forwarder beside it goes on."""

from __future__ import annotations

import json
import os

import pytest
from click.testing import CliRunner

from bench.chaos.fire import fire, judged
from bench.chaos.floods import FLOODS

CHOSEN = list(FLOODS) if os.environ.get("CHAOS") == "1" else ["pings", "key-updates", "half-said"]
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
