"""Closes what the readers of a test hold open."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.logfwd.sources.file import follow_harness


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Hundreds of tests would otherwise use up a process's file descriptors."""
    yield
    while follow_harness.made:
        follow_harness.made.pop().follower.close()
