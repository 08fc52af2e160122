"""What a link does while its receiver cannot serve: it waits there, or leaves for another one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from logfwd.links import backoff, conversation
from streams.wire import messages as m
from tests.logfwd.links.test_conversation import talking

UNAVAILABLE = m.Nack(-1, "unavailable")


async def test_the_only_receiver_may_hold_its_answer_and_is_asked_again_at_once_if_it_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backoff, "FIRST_SECONDS", 1000.0)
    async with talking(tmp_path, answer_timeout_seconds=0.75) as talk:
        hello = await talk.receiver.welcome()
        assert hello.patient
        for _ in range(3):
            asked = await talk.receiver.hear(m.OpenRun)
            assert asked.patience_ms == 250
            await asyncio.sleep(0.2)
            talk.receiver.say(UNAVAILABLE)
        await talk.receiver.open_run()
        assert await talk.receiver.batch() == 0


async def test_a_receiver_that_answers_at_once_is_asked_ever_more_seldom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backoff, "FIRST_SECONDS", 1000.0)
    async with talking(tmp_path) as talk:
        await talk.receiver.welcome()
        await talk.receiver.hear(m.OpenRun)
        talk.receiver.say(UNAVAILABLE)
        await talk.receiver.hear_nothing()


@pytest.mark.parametrize("code", ["unavailable", "not_granted"])
async def test_one_of_several_is_left_for_the_next_and_the_last_one_may_hold_its_answer(
    tmp_path: Path, code: str
) -> None:
    async with talking(tmp_path, receivers=2) as talk:
        await talk.receiver.welcome()
        assert (await talk.receiver.hear(m.OpenRun)).patience_ms == 0
        talk.receiver.say(m.Nack(-1, code))
        assert f"cannot serve: {code}" in (await talk.receiver.hear(m.Goaway)).reason
        talk.receiver.link.abort()
        await talk.ends()
        assert talk.conversation.seeks_another
        assert not talk.conversation._rounds.cannot_serve(0.0)
        assert talk.conversation._rounds.may_wait


async def test_a_link_is_left_though_its_answer_is_held(tmp_path: Path) -> None:
    async with talking(tmp_path) as talk:
        await talk.receiver.welcome()
        await talk.receiver.hear(m.OpenRun)
        talk.conversation.leave("the forwarder stops")
        assert (await talk.receiver.hear(m.Goaway)).reason == "the forwarder stops"
        talk.receiver.link.abort()
        await talk.ends()
        assert not talk.conversation.seeks_another


async def test_a_run_belongs_to_the_cluster_that_is_named_with_it(tmp_path: Path) -> None:
    async with talking(tmp_path) as talk:
        await talk.receiver.hear(m.Hello)
        talk.receiver.say(m.Welcome(m.VERSION, "session", "", "http", "", 0, m.MAX_WINDOW, 1_700_000_000_000))
        asked = await talk.receiver.hear(m.OpenRun)
        talk.receiver.say(m.Run(asked.run, "http", "id", 0, 7, b"grant", cluster_id="cluster"))
        assert await talk.receiver.batch() == 0
        run = talk.backlog.head_run()
        assert run is not None
        assert (run.cluster_id, run.topic_id) == ("cluster", "id")
        talk.receiver.say(m.Nack(0, "unavailable"))
        asked = await talk.receiver.hear(m.OpenRun)
        talk.receiver.say(m.Run(asked.run, "http", "id", 0, 7, b"grant", cluster_id="cluster"))
        assert await talk.receiver.batch() == 0
        assert talk.backlog.totals.resets == 0


async def test_a_link_that_is_being_left_is_kept_alive_by_pings_as_long_as_a_batch_is_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation, "LOOK_SECONDS", 0.25)
    monkeypatch.setattr(conversation, "PING_IDLE_SECONDS", 0.25)
    async with talking(tmp_path) as talk:
        await talk.receiver.welcome()
        await talk.receiver.open_run()
        assert await talk.receiver.batch() == 0
        talk.receiver.say(m.Goaway("it stops", 30_000))
        answering = asyncio.create_task(talk.receiver.answer_pings())
        await asyncio.sleep(2.5)  # more than twice as long as silence may be
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)
        assert not talk.running.done()
        talk.receiver.say(m.Ack(0, 0, 0))
        await talk.receiver.hear(m.Goaway)
        talk.receiver.link.abort()
        await talk.ends()
        assert not talk.backlog.rows


async def test_a_ping_is_answered_while_a_batch_is_not(tmp_path: Path) -> None:
    async with talking(tmp_path) as talk:
        await talk.receiver.welcome()
        await talk.receiver.open_run()
        await talk.receiver.batch()
        talk.receiver.say(m.Ping(42))
        assert (await talk.receiver.hear(m.Pong)).token == 42
