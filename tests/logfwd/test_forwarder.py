"""The forwarder as a whole, without processes of their own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import structlog

from logfwd.forwarder import Forwarder
from logfwd.sources.http.settings import HttpSource
from logfwd.sources.settings import FileSource
from streams.program import SWITCH_SECONDS
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


@pytest.mark.parametrize(
    ("source", "favoured"), [(FileSource(paths=("app.log",)), False), (HttpSource(address="127.0.0.1:0"), True)]
)
async def test_threads_that_compute_give_way_to_the_loop_sooner_only_where_clients_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: FileSource | HttpSource, favoured: bool
) -> None:
    intervals: list[float] = []
    monkeypatch.setattr(sys, "setswitchinterval", intervals.append)
    installation = Installation(tmp_path)
    async with Forwarder(installation.forwarder_config("localhost:1", installation.stream(source=source))):
        pass
    assert intervals == [SWITCH_SECONDS] * favoured
