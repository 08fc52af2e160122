"""What goes wrong in one link of a receiver is said, and concerns that link alone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from logreceiver.links.session import Session
from logreceiver.service import Service
from streams.security import stacks
from streams.security.connecting import connect
from streams.security.modes import MODES
from tests.support.installation import Installation, acknowledged, eventually, forwarding, found, lines, running


async def test_a_link_that_comes_while_the_receiver_stops_is_told_so(tmp_path: Path) -> None:
    installation = Installation(tmp_path)
    party = stacks.client(MODES["hybrid"], installation.parties.forwarder)
    service = Service(installation.receiver_config())
    async with service:
        address = service.listeners[0].address
        early = await connect(address, party, server_name="localhost")
        await eventually(lambda: service._live, 30)
        with capture_logs() as events:
            stop = asyncio.create_task(service._stop())
            await eventually(service._ready, 30)
            late = await connect(address, party, server_name="localhost")
            await eventually(lambda: found(events, "link refused"), 30)
        assert [event["reason"] for event in found(events, "link refused")][:1] == ["the receiver is stopping"]
        await asyncio.gather(late.close(), early.close(), stop)


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
