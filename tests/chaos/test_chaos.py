"""A short run of what `make chaos` does for half an hour."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from bench.chaos.command import run_seeds

FAULT_SECONDS = 10.0


@pytest.mark.kafka
def test_faults_of_all_kinds_lose_and_repeat_nothing(tmp_path: Path) -> None:
    (outcome,) = run_seeds([11], FAULT_SECONDS, tmp_path, Console(width=120))
    assert outcome.exact, outcome
    assert outcome.kills >= 4
    assert set(outcome.resets.values()) == {0}
    assert outcome.tracebacks == []
