"""What goes wrong in one link of a receiver is said, and concerns that link alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from logreceiver.links.session import Session
from tests.support.installation import Installation, acknowledged, eventually, forwarding, found, lines, running


async def test_a_session_that_fails_unexpectedly_is_said_and_the_next_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installation, failures, serve = Installation(tmp_path), [MemoryError("no more")], Session._serve

    async def fail_once(self: Session, welcomed: Any) -> None:
        if failures:
            raise failures.pop()
        await serve(self, welcomed)

    monkeypatch.setattr(Session, "_serve", fail_once)
    with capture_logs() as events:
        async with (
            running(installation.receiver_config()) as service,
            forwarding(installation.forwarder_config(service.listeners[0].address)) as forwarder,
        ):
            installation.append(*lines(10))
            await eventually(lambda: acknowledged(forwarder) == 10, 60)
    assert [event["reason"] for event in found(events, "session failed")] == ["MemoryError: no more"]
    assert installation.stored() == lines(10)
