"""Fixtures for all tests, and one promise: a test that did not run is named at the very end, with what it lacks.

With STRICT=1 in the environment a skipped test fails the run.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import hypothesis
import pytest

from bench.lab.kafka import Kafka
from bench.lab.kafkatools import KafkaFailed, jars, java
from tests.support.chaos import CHAOS
from tests.support.kafka import UP_SOONER, keep_classes

hypothesis.settings.register_profile("here", deadline=None)  # a busy machine makes any example slow once
hypothesis.settings.load_profile("here")

SETTINGS = {"producer.id.expiration.check.interval.ms": "500"}  # for the test that has producers forgotten


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """One real broker for the whole run. Without its packages a test is skipped; a broker that fails is an error."""
    try:
        java()
        jars()
    except KafkaFailed as error:
        pytest.skip(str(error))
    keep_classes(tmp_path_factory.mktemp("classes"))
    with Kafka(tmp_path_factory.mktemp("kafka"), overrides=SETTINGS, jvm_options=UP_SOONER) as running:
        yield running


@pytest.fixture
def topic_name() -> str:
    """A name that no other test has."""
    return f"t-{uuid.uuid4().hex}"


# -- tests of `make chaos` alone -------------------------------------------------------------------------------


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    long = [] if CHAOS else [item for item in items if item.get_closest_marker("chaos")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


# -- skipped tests ---------------------------------------------------------------------------------------------


class Skips:
    """Notes what was skipped, where reports of all processes come together."""

    def __init__(self) -> None:
        self.skips: list[tuple[str, str]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self.skips.append((report.nodeid, reason.removeprefix("Skipped: ")))

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if self.skips and exitstatus == pytest.ExitCode.OK and _strict():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_unconfigure(self) -> None:
        """The last lines of all."""
        if self.skips:
            print(f"{len(self.skips)} tests did not run" + (", and STRICT=1 forbids that:" if _strict() else ":"))
        for test, reason in self.skips:
            print(f"  {test}: {reason}")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # one of several processes
        config.pluginmanager.register(Skips())


def _strict() -> bool:
    return os.environ.get("STRICT") == "1"
