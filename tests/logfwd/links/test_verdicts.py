"""What a link does about a batch that is stored, or may be, and is refused all the same."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypedDict

import pytest
from structlog.testing import capture_logs

from logfwd.links import conversation
from logfwd.links.conversation import Conversation
from logfwd.links.resume import Recovery, Wait
from streams.errors import LinkError
from streams.wire import messages as m
from tests.logfwd.links.test_conversation import TOPIC, TOPIC_ID, WELCOME, Talk, talking
from tests.support.patience import PATIENCE_SECONDS
from tests.support.spools import RECORDS_IN_A_BATCH, number_of


@pytest.mark.parametrize("code", ["too_large", "corrupt"])
async def test_behind_a_stored_batch_that_is_refused_the_next_one_is_sent_and_covers_it(
    tmp_path: Path, code: str
) -> None:
    async with talking(tmp_path, batches=3) as talk:
        await talk.receiver.welcome()
        await talk.receiver.open_run()
        sent = [await talk.receiver.batch() for _ in range(3)]
        talk.receiver.say(m.Nack(0, "timed_out", uncertain=True), m.Nack(1, "not_tried"), m.Nack(2, "not_tried"))
        stored = RECORDS_IN_A_BATCH - 1
        await talk.receiver.open_run(stored_epoch=0, stored_sequence=stored)
        sent.append(await talk.receiver.batch())
        talk.receiver.say(m.Nack(3, code, permanent=True))
        await talk.receiver.open_run(stored_epoch=0, stored_sequence=stored)
        sent.append(await talk.receiver.batch())
        assert sent == [0, 1, 2, 0, 1]
        talk.receiver.say(m.Ack(4, 0, 3))
        assert await talk.receiver.batch() == 2
        talk.receiver.say(m.Ack(5, 0, 6))
        await talk.add(3)
        assert await talk.receiver.batch() == 3
        totals = talk.backlog.totals
        assert (totals.acknowledged, totals.dead_lettered, totals.resets) == (3 * RECORDS_IN_A_BATCH, 0, 0)


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "FULL_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr("logfwd.links.backoff.FIRST_SECONDS", 0.0)


class Known(TypedDict):
    """What the sink says of a run."""

    stored_epoch: int
    stored_sequence: int


STORED = Known(stored_epoch=0, stored_sequence=RECORDS_IN_A_BATCH - 1)
"""The first batch of a run is stored."""


async def refuse_again(talk: Talk, seq: int) -> None:
    """The first batch, which is stored, is sent once more, and is not taken."""
    await talk.receiver.open_run(**STORED)
    assert await talk.receiver.batch() == 0
    talk.receiver.say(m.Nack(seq, "too_large", permanent=True))


@pytest.mark.usefixtures("no_pauses")
async def test_with_nothing_behind_a_stored_batch_that_is_refused_it_is_tried_until_it_is_taken(
    tmp_path: Path,
) -> None:
    async with talking(tmp_path) as talk:
        await talk.receiver.welcome()
        await talk.receiver.open_run()
        assert await talk.receiver.batch() == 0
        talk.receiver.say(m.Nack(0, "timed_out", uncertain=True))
        with capture_logs() as events:
            for seq in (1, 2, 3):
                await refuse_again(talk, seq)
                await talk.receiver.open_run(**STORED)
            await talk.receiver.open_run(**STORED)
        assert [event["event"] for event in events].count("stored batch refused") == 1
        assert "is stored" in talk.delivery.trouble
        assert await talk.receiver.batch() == 0
        talk.receiver.say(m.Ack(4, 0, 0))
        await talk.add(1)
        assert await talk.receiver.batch() == 1
        assert (len(talk.backlog.rows), talk.delivery.trouble) == (1, "")


def number_in(message: m.Heard) -> int | None:
    """The number of a batch; None of anything else."""
    return number_of(bytes(message.payload)) if isinstance(message, m.Batch) else None


@contextlib.asynccontextmanager
async def restarted(directory: Path, *, batches: int) -> AsyncIterator[Talk]:
    """Killed with batch 0 in flight, which is stored and not taken again; the next start has sealed some more."""
    async with talking(directory) as talk:
        await talk.receiver.welcome()
        await talk.receiver.open_run()
        assert await talk.receiver.batch() == 0
    async with talking(directory, batches=0) as talk:
        for number in range(1, batches + 1):
            await talk.add(number)
        await talk.receiver.welcome()
        await refuse_again(talk, 0)
        yield talk


@pytest.mark.usefixtures("no_pauses")
async def test_after_a_restart_the_next_run_vouches_for_a_stored_batch_that_is_refused(tmp_path: Path) -> None:
    async with restarted(tmp_path, batches=3) as talk:
        assert (await talk.receiver.open_run()).producer_id == -1, "a run of its own for each start"
        assert [await talk.receiver.batch() for _ in range(3)] == [1, 2, 3]
        talk.receiver.say(m.Ack(1, 0, 3))
        await talk.receiver.hear_nothing()
        assert len(talk.backlog.rows) == 4, "nothing leaves before the sink says again that the first one is stored"
        talk.receiver.say(m.Ack(2, 0, 6), m.Ack(3, 0, 9))
        await talk.receiver.open_run(**STORED)
        await talk.receiver.open_run(stored_epoch=0, stored_sequence=3 * RECORDS_IN_A_BATCH - 1)
        assert [row.record_count for row in talk.backlog.rows] == [RECORDS_IN_A_BATCH] * 3
        assert await talk.receiver.batch() == 3, "the last one is repeated, and covers those before it"
        talk.receiver.say(m.Ack(4, 0, 9))
        await talk.add(4)
        assert await talk.receiver.batch() == 4
        totals = talk.backlog.totals
        assert (totals.acknowledged, totals.dead_lettered, totals.resets) == (4 * RECORDS_IN_A_BATCH, 0, 0)


@pytest.mark.usefixtures("no_pauses")
async def test_a_stored_batch_that_is_gone_when_the_next_run_has_vouched_for_it_is_sent_again(tmp_path: Path) -> None:
    """The leader that had it alone was replaced meanwhile."""
    async with restarted(tmp_path, batches=1) as talk:
        await talk.receiver.open_run()
        assert await talk.receiver.batch() == 1
        talk.receiver.say(m.Ack(1, 0, 0))
        await talk.receiver.open_run()
        assert await talk.receiver.batch() == 0
        talk.receiver.say(m.Nack(2, "timed_out", uncertain=True))
        await refuse_again(talk, 3)
        await talk.receiver.open_run(**STORED)
        assert len(talk.backlog.rows) == 2, "what vouched is older than the repeat, so another batch has to vouch"
        await talk.add(2)
        while number_in(heard := await talk.receiver.next()) != 2:
            if isinstance(heard, m.OpenRun):
                talk.receiver.say(m.Run(heard.run, TOPIC, TOPIC_ID, 0, 7, b"grant", 0, RECORDS_IN_A_BATCH - 1))
            elif isinstance(heard, m.Batch):
                talk.receiver.say(m.Nack(heard.seq, "too_large", permanent=True))


@pytest.mark.usefixtures("no_pauses")
async def test_a_run_in_another_partition_vouches_for_nothing(tmp_path: Path) -> None:
    async with restarted(tmp_path, batches=1) as talk:
        asked = await talk.receiver.hear(m.OpenRun)
        talk.receiver.say(m.Run(asked.run, TOPIC, TOPIC_ID, 1, 7, b"grant", -1, -1))
        for seq in (1, 2):
            await talk.receiver.open_run(**STORED)
            await refuse_again(talk, seq)
        assert len(talk.backlog.rows) == 2


async def test_an_uncertain_answer_is_remembered_though_the_link_ends_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: object, **__: object) -> None:
        raise AssertionError("the refusal is not dealt with: its link has ended")

    noted: list[float] = []
    uncertain = Recovery.uncertain

    def note(self: Recovery, now: float) -> None:
        noted.append(now)
        uncertain(self, now)

    monkeypatch.setattr(Recovery, "uncertain", note)
    monkeypatch.setattr(Conversation, "_all_answered", never)
    async with talking(tmp_path) as talk:
        await talk.receiver.welcome()
        await talk.receiver.open_run()
        await talk.receiver.batch()
        talk.receiver.say(m.Nack(0, "timed_out", uncertain=True))
        with pytest.raises((LinkError, AssertionError)):
            await talk.ends()
        assert len(noted) == 1
        run = talk.backlog.head_run()
        assert run is not None
        unknown = m.Run(run.number, TOPIC, TOPIC_ID, 0, 7, b"grant", 0, 1_000_000)
        assert isinstance(await talk.delivery.plan(run, WELCOME, unknown), Wait), "a late copy may still be stored"


async def test_a_link_that_is_being_left_still_pings_while_an_answer_is_outstanding(tmp_path: Path) -> None:
    async with talking(tmp_path) as talk:
        await talk.receiver.welcome()
        await talk.receiver.open_run()
        await talk.receiver.batch()
        talk.receiver.say(m.Goaway("the receiver stops"))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not talk.conversation.leaving:
                await asyncio.sleep(0.01)
            while not isinstance(await talk.receiver.next(), m.Ping):
                pass
        talk.receiver.say(m.Ack(0, 0, 0))
        await talk.ends()
