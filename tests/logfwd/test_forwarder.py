"""The forwarder as a whole, without processes of their own."""

from __future__ import annotations

from pathlib import Path

import structlog

from logfwd.forwarder import Forwarder
from tests.support.installation import Installation


async def test_spools_of_removed_streams_are_named_at_the_start(tmp_path: Path) -> None:
    installation = Installation(tmp_path)
    config = installation.forwarder_config("localhost:1", installation.stream())
    config.state_dir.mkdir()
    (config.state_dir / "old.spool").write_bytes(b"12345")
    with structlog.testing.capture_logs() as events:
        async with Forwarder(config):
            pass
    (told,) = [event for event in events if event["event"] == "spool of a removed stream"]
    assert (told["stream"], told["bytes"]) == ("old", 5)
    assert "logfwd spool rm" in told["remedy"]
