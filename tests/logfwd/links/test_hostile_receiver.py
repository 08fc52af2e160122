"""What a receiver can do that holds a certificate and means harm, or is broken: end the link, and nothing else."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from logfwd.links import conversation
from logfwd.links.conversation import Conversation
from streams.errors import Code, RemoteProtocolError
from streams.security.transport import OUTBOX_HIGH_BYTES
from streams.wire import messages as m
from streams.wire.codec import encode
from tests.logfwd.links.test_conversation import TOPIC, TOPIC_ID, Talk, talking
from tests.support.spools import numbered


def flood(talk: Talk, *messages: m.Message) -> None:
    """Said whether or not a receiver may say it."""
    talk.receiver.link.write(b"".join(bytes(part) for message in messages for part in encode(message)))


@pytest.mark.parametrize(
    ("answers", "text"),
    [([m.Ack(1, 0, 0)], "answer to 1, not 0"), ([m.Ack(0, 0, 0), m.Ack(0, 0, 0)], "answer to 0, not 1")],
    ids=["of the future", "twice"],
)
async def test_an_acknowledgement_of_what_was_not_sent_ends_the_link_as_a_fault(
    tmp_path: Path, answers: list[m.Message], text: str
) -> None:
    async with talking(tmp_path) as talk:
        await talk.receiver.welcome()
        await talk.receiver.open_run()
        await talk.receiver.batch()
        flood(talk, *answers)
        assert (await talk.receiver.hear(m.Error)).code == Code.BAD_SEQUENCE
        talk.receiver.link.abort()
        with pytest.raises(RemoteProtocolError, match=text):
            await talk.ends()
        assert not talk.conversation.has_served, "the next link waits longer, whatever this one acknowledged"


@pytest.mark.parametrize("message", [m.Ping(1), m.Pong(1), m.Goaway("again")])
async def test_a_flood_of_what_needs_no_batch_ends_the_link(tmp_path: Path, message: m.Message) -> None:
    async with talking(tmp_path) as talk:
        await talk.receiver.welcome()
        await talk.receiver.open_run()
        await talk.receiver.batch()
        flood(talk, *[message] * 1000)
        with pytest.raises(RemoteProtocolError, match="PINGs and such"):
            await talk.ends()


async def test_a_receiver_that_reads_no_pongs_is_not_read_and_can_be_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation, "MOST_PINGS", 1e9)
    async with talking(tmp_path, batches=0) as talk:
        await talk.receiver.welcome()
        talk.receiver.link.hold(True)
        near, pings = talk.conversation._link, b"".join(bytes(part) for part in encode(m.Ping(1 << 60))) * 10_000
        with pytest.raises(TimeoutError):
            for _ in range(100):
                talk.receiver.link.write(pings)
                async with asyncio.timeout(0.5):
                    await talk.receiver.link.drain()
        assert near.bytes_sent < 4 * OUTBOX_HIGH_BYTES
        talk.conversation.leave("enough")
        talk.receiver.link.abort()


async def test_pauses_grow_with_refusals_over_links_and_end_with_an_acknowledgement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    async def pause(_: Conversation, seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(Conversation, "_pause", pause)
    monkeypatch.setattr("logfwd.links.backoff.random.uniform", lambda low, high: high)
    async with talking(tmp_path, batches=3) as talk:
        await talk.receiver.welcome()
        await talk.receiver.open_run()
        for _ in range(3):
            await talk.receiver.batch()
        talk.receiver.say(m.Nack(0, "unavailable"), m.Nack(1, "not_tried"), m.Nack(2, "not_tried"))
        for seq in (3, 4):
            await talk.receiver.open_run()
            assert await talk.receiver.batch() == 0
            await talk.receiver.hear_nothing()  # one batch is enough to ask with
            talk.receiver.say(m.Nack(seq, "unavailable"))
        assert pauses == [0.1, 0.2, 0.4][: len(pauses)]
        await talk.receiver.open_run()
        assert pauses == [0.1, 0.2, 0.4]
        assert await talk.receiver.batch() == 0
        talk.receiver.say(m.Ack(5, 0, 0))
        assert [await talk.receiver.batch() for _ in range(2)] == [1, 2]
        assert talk.delivery.backoff.is_calm


async def test_batches_that_the_topic_does_not_take_are_split_before_they_are_sent(tmp_path: Path) -> None:
    size = len(numbered(0).payload)
    async with talking(tmp_path, batches=2) as talk:
        await talk.receiver.welcome()
        asked = await talk.receiver.hear(m.OpenRun)
        talk.receiver.say(m.Run(asked.run, TOPIC, TOPIC_ID, 0, 7, b"grant", max_message_bytes=size - 1))
        sent = [await talk.receiver.hear(m.Batch) for _ in range(4)]
        assert [each.record_count for each in sent] == [1, 2, 1, 2]
        assert all(len(each.payload) < size for each in sent)
