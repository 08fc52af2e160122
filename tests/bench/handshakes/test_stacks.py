"""Our own TLS 1.3 is measured beside OpenSSL: every kind of handshake ends, and every figure is there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.handshakes.parties import HOST, KINDS
from bench.handshakes.stacks import GOALS, shake_hands, stacks


@pytest.mark.parametrize("mutual", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_both_sides_spend_time_on_a_handshake(kind: str, mutual: bool, tmp_path: Path) -> None:
    sides = KINDS[kind](tmp_path, mutual)
    assert min(shake_hands(sides)) > 0
    client, server = sides.client.endpoint(HOST), sides.server.endpoint()
    for _ in range(4):
        for one, other in ((client, server), (server, client)):
            if not one.complete:
                one.handshake()
            for part in one.take():
                other.feed(part)
    assert bool(server.facts().identities) == mutual


def test_the_command_gives_every_ratio() -> None:
    options = ["--rounds", "3", "--handshakes", "1", "--size", "1MB", "--json"]
    shown = json.loads(CliRunner().invoke(stacks, options, catch_exceptions=False).stdout)
    assert len(shown["rows"]) == 2 * len(KINDS)
    assert len(shown["ratios"]) == len(GOALS)
    assert [row["what"] for row in shown["data"]] == [
        "records in memory, CPU s/GB",
        "long link, CPU s/GB",
        "long link, MB/s",
    ]
    assert all(row["ratio"]["value"] > 0 for row in [*shown["ratios"], *shown["data"]])
