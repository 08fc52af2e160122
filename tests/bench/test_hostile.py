"""`logbench hostile`: each abuse of a listener gets its typed answer, and the forwarder's memory stays bounded."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from bench.chaos.attacks import ATTACKS
from bench.chaos.hostile import MOST_GROWN_MB, hostile, judged
from tests.support.chaos import CHAOS

ROW = {"title": "abuse", "outcomes": {"413": 1}, "unexpected": [], "peak_rss_mb": 100.0, "during_ms": [1.0, 4.0]}


LISTENERS = ["http", "tcp", "udp", "unix"] if CHAOS else ["unix"]
"""All of them in `make chaos`; the suite abuses HTTP in tests/integration/test_http_under_stress.py."""


@pytest.mark.slow
@pytest.mark.parametrize("listener", LISTENERS)
def test_abuse_gets_typed_answers_and_little_memory(listener: str) -> None:
    chosen = [name for name, attack in ATTACKS.items() if attack.listener == listener]
    arguments = [part for name in chosen for part in ("--attack", name)]
    answer = CliRunner().invoke(hostile, [*arguments, "--seconds", "3", "--json"])
    assert answer.exit_code == 0, answer.output
    rows = json.loads(answer.stdout)["rows"]
    assert [row["attack"] for row in rows] == chosen
    assert all(sum(row["outcomes"].values()) > 0 for row in rows)
    assert all(row["batches"]["during"] > 0 for row in rows), "the stream next to it went on"


def test_what_is_wrong_with_a_row_is_said() -> None:
    assert judged(dict(ROW), [1.0, 2.0], 90.0)["ratio"] == 2.0
    assert judged(dict(ROW), [1.0], 90.0)["faults"] == []
    assert judged(dict(ROW), [1.0], 100.0 - MOST_GROWN_MB - 1)["faults"] == [
        "abuse: the forwarder's memory grew to 100 MB"
    ]
    assert judged(ROW | {"unexpected": ["200"]}, [1.0], 90.0)["faults"] == ["abuse: answered 200"]
