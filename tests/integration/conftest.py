"""Fixtures of the integration tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from bench.kafka import Kafka, KafkaFailed, jars, java
from logfwd import resume
from tests.support.delivery import ANSWER_SECONDS
from tests.support.installation import Events, Installation

CLUSTER = {
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    # Long enough for a broker that is stopped for a moment to stay in sync, short enough to wait for the next leader.
    "broker.session.timeout.ms": "4000",
    "replica.lag.time.max.ms": "30000",
    "producer.id.expiration.check.interval.ms": "500",
}


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


@pytest.fixture
def events() -> Iterator[Events]:
    with capture_logs() as captured:
        yield captured


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """Three brokers for the whole run, as an installation that keeps its promise has them."""
    try:
        java()
        jars()
    except KafkaFailed as error:
        pytest.skip(str(error))
    with Kafka(tmp_path_factory.mktemp("cluster"), brokers=3, overrides=CLUSTER) as running:
        yield running


@pytest.fixture
def quick_resets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reset waits one second for late copies; tests that use this know where theirs are."""
    monkeypatch.setattr(resume, "LATE_COPY_MARGIN_SECONDS", 1.0 - ANSWER_SECONDS)
