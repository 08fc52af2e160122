"""A file system that does not answer is said, by a log line and by health, and so is that it answers again."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from logfwd.sources.file import hanging
from logfwd.sources.file.source import FileTail
from logfwd.sources.settings import FileSource
from tests.support.installation import eventually


async def test_a_file_system_that_does_not_answer_is_said_until_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, step = threading.Event(), FileTail._step

    def wait(self: FileTail, *arguments: Any) -> Any:
        assert answers.wait(60)
        return step(self, *arguments)

    monkeypatch.setattr(hanging, "HANGS_SECONDS", 0.01)
    monkeypatch.setattr(FileTail, "_step", wait)
    (tmp_path / "a.log").write_text('{"n":1}\n')
    source = FileTail(FileSource(paths=(f"{tmp_path}/*.log",)), max_record_bytes=1000)
    with capture_logs() as events:
        async with contextlib.aclosing(source.blocks({})) as blocks:
            first = asyncio.ensure_future(anext(blocks))
            await eventually(lambda: [event["event"] for event in events] == ["files do not answer"], 60)
            assert source.health().keys() == {"files"}
            assert not first.done()
            monkeypatch.setattr(hanging, "HANGS_SECONDS", 1.0)
            answers.set()
            await first  # that the first scan was made
            assert (await anext(blocks)).data == b'{"n":1}\n'
            assert source.health() == {}
            monkeypatch.setattr(hanging, "HANGS_SECONDS", 0.01)
            await eventually(lambda: events[-1]["event"] == "files answer again", 60)
