"""A short run of `logbench stuck`: memory, the waiting source, and nothing lost while Kafka is away."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from bench.chaos.stuck import MEMORY, run

SPOOL_MB = 20
AWAY_SECONDS = 8.0
MOST_RSS_MB = 150.0
MOST_GROWTH_MB = 3.0


@pytest.mark.kafka
def test_while_kafka_is_away_memory_is_flat_the_source_waits_and_nothing_is_lost(tmp_path: Path) -> None:
    outcome = run(tmp_path, seconds=AWAY_SECONDS, spool_mb=SPOOL_MB, console=Console(width=120))
    assert outcome.finding.exact, outcome.finding
    assert outcome.blocked
    full = [look for look in outcome.looks if look.seconds > AWAY_SECONDS / 2]
    assert all(look.waiting <= SPOOL_MB for look in full)
    for size in MEMORY:
        assert outcome.peak(size) < MOST_RSS_MB
        assert size(full[-1]) - size(full[0]) < MOST_GROWTH_MB
