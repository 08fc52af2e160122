"""Fixtures of the integration tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from logfwd.links import resume
from tests.support.delivery import ANSWER_SECONDS
from tests.support.installation import Events, Installation


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


@pytest.fixture
def events() -> Iterator[Events]:
    with capture_logs() as captured:
        yield captured


@pytest.fixture
def quick_resets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reset waits one second for late copies; tests that use this know where theirs are."""
    monkeypatch.setattr(resume, "LATE_COPY_MARGIN_SECONDS", 1.0 - ANSWER_SECONDS)
