"""`logbench restart`: what it prints, for one restart of each kind."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from bench.speed import restart


@pytest.mark.slow
def test_each_restart_is_an_outage_with_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restart, "SETTLE_SECONDS", 0.5)
    result = CliRunner().invoke(restart.restart, ["--rounds", "1", "--sink", "log", "--json"])
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)["rows"]
    assert [(row["signal"], row["socket"]) for row in rows] == [
        ("SIGKILL", "its own"),
        ("SIGTERM", "its own"),
        ("SIGKILL", "kept"),
        ("SIGTERM", "kept"),
    ]
    assert all(restart.POLL_SECONDS < seconds < restart.PATIENCE_SECONDS for row in rows for seconds in row["seconds"])
