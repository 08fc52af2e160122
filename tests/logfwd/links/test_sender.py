"""How long a stream without a link waits for the next one, and that it stops while one is made."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from structlog.typing import EventDict

from logfwd.definition import Stream
from logfwd.links import sender
from logfwd.links.sender import CLONE_PAUSE_SECONDS, Sender
from logfwd.metrics import ForwarderMetrics
from streams.errors import Code, LinkError, LinkRefused, NotListening
from streams.telemetry.metrics import CollectorRegistry


class Lost:
    """A conversation that was welcomed and ends with the next error of the test, or well."""

    welcomed = True
    seeks_another = False

    def __init__(self, *_: object) -> None:
        self.has_served, self._error = Lost.script.pop(0)

    script: list[tuple[bool, Exception | None]]  # was a batch stored, how did it end

    async def run(self) -> None:
        if self._error is not None:
            raise self._error

    def leave(self, reason: str) -> None:
        pass


@pytest.fixture
def events() -> Iterator[list[EventDict]]:
    with structlog.testing.capture_logs() as events:
        yield events


def delivery() -> Any:
    return SimpleNamespace(
        stream=Stream(name="s"),
        backlog=SimpleNamespace(waiting_batches=0),
        wake_by=lambda _: None,
        metrics=ForwarderMetrics(CollectorRegistry()),
        failed=lambda reason, detail: None,
    )


async def pauses(
    events: list[EventDict], monkeypatch: pytest.MonkeyPatch, *script: tuple[bool, Exception | None]
) -> list[float]:
    """The pauses after links that went like this; jitter takes nothing off."""
    monkeypatch.setattr("logfwd.links.backoff.random.uniform", lambda low, high: high)
    monkeypatch.setattr(sender, "Conversation", Lost)
    Lost.script = list(script)

    async def connect() -> Any:
        return None

    one = Sender(delivery(), connect)

    class NoTime:
        """Every pause is over at once."""

        def __init__(self) -> None:
            self.now = 0.0

        def __call__(self) -> float:
            self.now += 1000.0
            return self.now

    monkeypatch.setattr(sender, "clock", NoTime())
    task = asyncio.create_task(one.run())
    while Lost.script:
        await asyncio.sleep(0)
    one.stop()
    await asyncio.gather(task, return_exceptions=True)
    return [event["retry_in_seconds"] for event in events if event["event"] == "link failed"][: len(script)]


CUT = LinkError("cut")


async def test_links_on_which_nothing_is_stored_are_tried_ever_more_seldom(
    events: list[EventDict], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await pauses(events, monkeypatch, *[(False, CUT)] * 4) == [0.1, 0.2, 0.4, 0.8]


async def test_a_link_on_which_a_batch_was_stored_starts_the_back_off_over(
    events: list[EventDict], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = [(False, CUT), (False, CUT), (True, CUT), (False, CUT)]
    assert await pauses(events, monkeypatch, *script) == [0.1, 0.2, 0.1, 0.2]


async def test_links_that_the_receiver_has_left_at_once_are_tried_ever_more_seldom(
    events: list[EventDict], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = [(False, None), (False, None), (False, CUT), (True, None), (False, CUT)]
    assert await pauses(events, monkeypatch, *script) == [0.4, 0.2]


async def test_a_receiver_that_does_not_listen_is_tried_again_soon_and_then_within_a_second_for_ever(
    events: list[EventDict], monkeypatch: pytest.MonkeyPatch
) -> None:
    away = NotListening("refused")
    assert await pauses(events, monkeypatch, *[(False, away)] * 20, (False, CUT)) == [0.1, 0.2, 0.4, 0.8] + [
        0.9
    ] * 16 + [0.1]


async def test_a_forwarder_whose_link_another_copy_took_over_waits_longer(
    events: list[EventDict], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken_over = LinkRefused(Code.SUPERSEDED, "another link")
    (pause,) = await pauses(events, monkeypatch, (True, taken_over))
    assert pause == 1.5 * CLONE_PAUSE_SECONDS


async def test_a_link_that_is_made_while_the_sender_stops_is_closed_at_once() -> None:
    closed: list[bool] = []

    async def close() -> None:
        closed.append(True)

    async def connect() -> Any:
        one.stop()
        return SimpleNamespace(close=close)

    one = Sender(delivery(), connect)
    async with asyncio.timeout(60):
        await one.run()
    assert closed == [True]
