"""Tasks in the background: what fails is said, counted and shown, and begins again; or it ends the program."""

from __future__ import annotations

import asyncio
import contextlib
import re
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from streams import tasks
from streams.program import EX_SOFTWARE
from tests.support.installation import eventually, found

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(tasks, "_failures", type(tasks._failures)())
    monkeypatch.setattr(tasks, "_troubles", {})


async def test_a_task_that_fails_begins_again_and_is_shown_until_it_is_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "MENDED_SECONDS", 0.02)
    begun = list[int]()

    async def work() -> None:
        begun.append(len(begun))
        if len(begun) < 3:
            raise RuntimeError("no")
        await asyncio.Event().wait()

    with capture_logs() as events:
        async with tasks.running("watch", work):
            await eventually(lambda: len(begun) == 3)
            assert tasks.troubles() == {"task watch": "RuntimeError: no"}
            await eventually(lambda: not tasks.troubles())
    assert tasks.failures() == {"watch": 2}
    assert [event["reason"] for event in found(events, "task failed")] == ["RuntimeError: no"] * 2


async def test_one_that_ends_by_itself_stays_ended() -> None:
    begun = list[int]()

    async def work() -> None:
        begun.append(1)

    await tasks.forever("once", work)
    assert (begun, tasks.failures()) == ([1], {})


@pytest.mark.parametrize("error", [RuntimeError("no"), None])
async def test_a_vital_one_that_fails_ends_the_program(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    codes = list[int]()
    monkeypatch.setattr(tasks, "leave", codes.append)

    async def work() -> None:
        if error is not None:
            raise error

    with capture_logs() as events, contextlib.suppress(RuntimeError):
        task = tasks.vital("commits", work())
        await task
    await asyncio.sleep(0)
    assert codes == ([] if error is None else [EX_SOFTWARE])
    assert [event["task"] for event in found(events, "task failed")] == ([] if error is None else ["commits"])


AWAITED = {
    "logfwd.cli": "until the first of them ends",
    "logfwd.keeper": "catches everything, and builds its pipeline again",
    "logfwd.links.conversation": "until the first of them ends",
    "logfwd.links.sender": "the next link, which is asked for when this one has ended",
    "logfwd.pipeline": "until the first of them fails",
    "logfwd.reloading": "the digests that the next reload waits for",
    "logfwd.sources.http.server": "the end of a door",
    "logfwd.sources.stdin": "the block that is asked for",
    "logfwd.spool.committer": "a thread: its end is the program's",
    "logfwd.spool.store": "the pipeline waits for it",
    "logreceiver.following": "the answer to the parent, and catches everything",
    "logreceiver.links.hearing": "until there is memory",
    "logreceiver.links.session": "until the first of them ends",
    "logreceiver.listeners": "the end of a listener",
    "logreceiver.reloading": "the end of a ledger",
    "logreceiver.sinks.kafka.coalesced": "whoever asks waits for it",
    "logreceiver.sinks.kafka.lanes": "says its error itself",
    "logreceiver.workers": "a thread: its end is the program's",
    "streams.control": "catches everything",
    "streams.names": "a thread: its end is the program's",
    "streams.security.listener": "a link, whose own error ends it alone",
    "streams.signals": "catches everything; a thread: its end is the program's",
    "streams.tasks": "here they are kept",
    "streams.telemetry.admin": "catches everything, and begins again",
    "streams.telemetry.adminthread": "told to the program, which begins again",
    "streams.telemetry.httpserver": "an answer: catches everything",
    "streams.telemetry.logwriter": "a thread: its end is the program's",
}
"""Who notices that a task or thread has failed, where it is not kept by streams/tasks.py."""


def test_no_task_can_fail_in_silence() -> None:
    begins = re.compile(r"\b(create_task|ensure_future|TaskGroup|Thread)\(")
    found = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for package in ("streams", "logfwd", "logreceiver")
        for path in (ROOT / package).rglob("*.py")
        if begins.search(path.read_text())
    }
    assert found == set(AWAITED), "keep it by streams/tasks.py, or say here who notices its end"
