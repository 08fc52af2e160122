"""Fixtures for all tests, and one promise: a test that did not run is named at the very end, with what it lacks.

With STRICT=1 in the environment a skipped test fails the run.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest

from bench.kafka import Kafka, KafkaFailed, jars, java

Skip = tuple[str, str]
_skips = pytest.StashKey[list[Skip]]()


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """One real broker for the whole run. Without its packages a test is skipped; a broker that fails is an error."""
    try:
        java()
        jars()
    except KafkaFailed as error:
        pytest.skip(str(error))
    with Kafka(tmp_path_factory.mktemp("kafka")) as running:
        yield running


@pytest.fixture
def topic_name() -> str:
    """A name that no other test has."""
    return f"t-{uuid.uuid4().hex}"


# -- skipped tests ---------------------------------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_skips] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report: pytest.TestReport = yield  # type: ignore[assignment]
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        item.config.stash[_skips].append((item.nodeid, reason.removeprefix("Skipped: ")))
    return report  # type: ignore[return-value]


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if session.config.stash[_skips] and exitstatus == pytest.ExitCode.OK and _strict():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_unconfigure(config: pytest.Config) -> None:
    """The last lines of all."""
    skips = config.stash.get(_skips, [])
    if skips:
        print(f"{len(skips)} tests did not run" + (", and STRICT=1 forbids that:" if _strict() else ":"))
    for test, reason in skips:
        print(f"  {test}: {reason}")


def _strict() -> bool:
    return os.environ.get("STRICT") == "1"
