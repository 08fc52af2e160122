"""One link of a forwarder, over a link without TLS, against a receiver that does what each test says."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest
from structlog.testing import capture_logs

from logfwd.definition import Stream
from logfwd.links import conversation
from logfwd.links.conversation import Conversation
from logfwd.links.delivery import Delivery
from logfwd.links.resume import Wait
from logfwd.links.rounds import Rounds
from logfwd.metrics import ForwarderMetrics
from logfwd.spool.backlog import Backlog
from logfwd.spool.store import Spool
from streams.errors import Code, LinkError, LinkRefused, ProtocolError
from streams.security.transport import Link
from streams.telemetry.metrics import CollectorRegistry
from streams.wire import messages as m
from streams.wire.connection import ReceiverConnection
from tests.support.patience import PATIENCE_SECONDS
from tests.support.plaintext import links
from tests.support.spools import accept, backlog_of, number_of

M = TypeVar("M", bound=m.Message)
TOPIC, TOPIC_ID, CLUSTER = "http", "topic-id", "cluster"
WELCOME = m.Welcome(m.VERSION, "session", CLUSTER, TOPIC, TOPIC_ID, 1 << 20, m.MAX_WINDOW, 1_700_000_000_000)


class Receiver:
    """The other end of the link."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self._wire = ReceiverConnection()
        self._heard: deque[m.Heard] = deque()

    def say(self, *messages: m.Message) -> None:
        for message in messages:
            self.link.write(*self._wire.send(message))

    async def next(self) -> m.Heard:
        """The next message."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not self._heard:
                data = await self.link.receive()
                assert data, "the forwarder left"
                self._heard += self._wire.receive_data(data)
        return self._heard.popleft()

    async def hear(self, kind: type[M]) -> M:
        """The next message, which must be of this kind; what a slow machine says before it does not count."""
        while isinstance(message := await self.next(), m.Ping | m.Report) and not isinstance(message, kind):
            if isinstance(message, m.Ping):
                self.say(m.Pong(message.token))
        assert isinstance(message, kind), message
        return message

    async def answer_pings(self) -> None:
        """Answer them and nothing else."""
        while True:
            if isinstance(message := await self.next(), m.Ping):
                self.say(m.Pong(message.token))

    async def hear_nothing(self, *, seconds: float = 0.05) -> None:
        """Nothing comes for a while."""
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(seconds):
                raise AssertionError(await self.next())

    async def welcome(self) -> m.Hello:
        hello = await self.hear(m.Hello)
        self.say(WELCOME)
        return hello

    async def open_run(self, *, stored_epoch: int = -1, stored_sequence: int = -1) -> m.OpenRun:
        asked = await self.hear(m.OpenRun)
        producer_id = asked.producer_id if asked.producer_id >= 0 else 7
        self.say(m.Run(asked.run, TOPIC, TOPIC_ID, 0, producer_id, b"grant", stored_epoch, stored_sequence))
        return asked

    async def batch(self) -> int:
        """The number of the next batch."""
        return number_of(bytes((await self.hear(m.Batch)).payload))


@dataclass
class Talk:
    """A conversation that runs, and its two ends."""

    receiver: Receiver
    conversation: Conversation
    delivery: Delivery
    backlog: Backlog
    spool: Spool
    wake: asyncio.Event
    running: asyncio.Task[None]

    async def add(self, number: int) -> None:
        """One more batch is sealed."""
        await accept(self.spool, number, self.backlog)
        self.wake.set()

    async def ends(self) -> None:
        """Wait for its end; raises what ended it."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self.running


@contextlib.asynccontextmanager
async def talking(
    directory: Path,
    *,
    batches: int = 1,
    window: int = m.MAX_WINDOW,
    topic: str | None = None,
    answer_timeout_seconds: float = 30.0,
    receivers: int = 1,
) -> AsyncIterator[Talk]:
    async with Spool(directory / "http.spool") as spool, links() as (near, far):
        backlog = backlog_of(spool)
        for number in range(batches):
            await accept(spool, number, backlog)
        delivery = Delivery(
            Stream(name="http", window=window, topic=topic),
            backlog,
            spool,
            ForwarderMetrics(CollectorRegistry()),
            boot_id="boot",
            answer_timeout_seconds=answer_timeout_seconds,
        )
        wake = asyncio.Event()
        talk = Conversation(near, delivery, Rounds(receivers), wake, rotate=lambda: None)
        running = asyncio.create_task(talk.run())
        try:
            yield Talk(Receiver(far), talk, delivery, backlog, spool, wake, running)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The link is watched every 20 ms."""
    monkeypatch.setattr(conversation, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(conversation, "PING_IDLE_SECONDS", 0.02)


async def test_batches_leave_the_backlog_in_order_as_they_are_acknowledged(tmp_path: Path) -> None:
    async with talking(tmp_path, batches=3) as talk:
        hello = await talk.receiver.welcome()
        assert (hello.stream, hello.mode, hello.boot_id) == ("http", "hybrid", "boot")
        await talk.receiver.open_run()
        assert [await talk.receiver.batch() for _ in range(3)] == [0, 1, 2]
        assert talk.conversation.unacknowledged == 3
        first, *_ = list(talk.backlog.rows)
        talk.receiver.say(m.Ack(0, 0, 0))
        await talk.receiver.hear_nothing()
        assert first not in talk.backlog.rows
        assert len(talk.backlog.rows) == talk.conversation.unacknowledged == 2


async def test_a_stream_s_own_window_is_kept_where_the_receiver_grants_more(tmp_path: Path) -> None:
    async with talking(tmp_path, batches=3, window=1) as talk:
        await talk.receiver.welcome()
        await talk.receiver.open_run()
        for number in range(3):
            assert await talk.receiver.batch() == number
            await talk.receiver.hear_nothing()
            talk.receiver.say(m.Ack(number, 0, number))


async def test_a_link_that_is_left_waits_for_its_answers_and_ends_with_a_report(tmp_path: Path) -> None:
    async with talking(tmp_path, batches=2) as talk:
        await talk.receiver.welcome()
        await talk.receiver.open_run()
        assert [await talk.receiver.batch() for _ in range(2)] == [0, 1]
        talk.conversation.leave("enough")
        await talk.add(2)
        await talk.receiver.hear_nothing()
        talk.receiver.say(m.Ack(0, 0, 0), m.Ack(1, 0, 3))
        report = await talk.receiver.hear(m.Report)
        assert (report.accepted, report.acknowledged) == (9, 6)
        assert (await talk.receiver.hear(m.Goaway)).reason == "enough"
        talk.receiver.link.abort()
        await talk.ends()
        assert len(talk.backlog.rows) == 1


async def test_a_receiver_that_leaves_gets_no_new_batch_and_the_link_ends_well(tmp_path: Path) -> None:
    async with talking(tmp_path) as talk:
        await talk.receiver.welcome()
        await talk.receiver.open_run()
        assert await talk.receiver.batch() == 0
        talk.receiver.say(m.Goaway("the receiver stops", 1000))
        await talk.add(1)
        await talk.receiver.hear_nothing()
        talk.receiver.say(m.Ack(0, 0, 0))
        await talk.receiver.hear(m.Report)
        assert "the receiver stops" in (await talk.receiver.hear(m.Goaway)).reason
        talk.receiver.link.abort()
        await talk.ends()


@pytest.mark.usefixtures("quick")
async def test_a_batch_that_is_not_answered_in_time_ends_a_link_whose_receiver_still_answers_pings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation, "SILENCE_PINGS", 1000)  # a busy machine may answer late
    async with talking(tmp_path, answer_timeout_seconds=0.3) as talk:
        await talk.receiver.welcome()
        await talk.receiver.open_run()
        assert await talk.receiver.batch() == 0
        answering = asyncio.create_task(talk.receiver.answer_pings())
        with pytest.raises(LinkError, match="a batch was not answered in time"):
            await talk.ends()
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)


@pytest.mark.parametrize("after_welcome", [False, True])
async def test_a_question_that_is_not_answered_in_time_ends_the_link(tmp_path: Path, after_welcome: bool) -> None:
    async with talking(tmp_path, answer_timeout_seconds=0.05) as talk:
        if after_welcome:
            await talk.receiver.welcome()
        with pytest.raises(LinkError, match="did not answer in time"):
            await talk.ends()


@pytest.mark.usefixtures("quick")
async def test_a_receiver_that_fell_silent_is_left(tmp_path: Path) -> None:
    async with talking(tmp_path, batches=0) as talk:
        await talk.receiver.welcome()
        with pytest.raises(LinkError, match="fell silent"):
            await talk.ends()


async def test_the_first_refusal_of_a_window_counts_and_is_acted_on_once_all_is_answered(tmp_path: Path) -> None:
    async with talking(tmp_path, batches=3) as talk:
        await talk.receiver.welcome()
        await talk.receiver.open_run()
        for _ in range(3):
            await talk.receiver.batch()
        with capture_logs() as events:
            talk.receiver.say(m.Ack(0, 0, 0), m.Nack(1, "out_of_order"))
            await talk.receiver.hear_nothing()
            talk.receiver.say(m.Nack(2, "not_tried"))
            asked = await talk.receiver.hear(m.OpenRun)
        assert [event["code"] for event in events if event["event"] == "batch refused"] == ["out_of_order"]
        assert (asked.producer_id, asked.grant) == (7, b"grant")
        assert len(talk.backlog.rows) == 2


async def test_a_refusal_that_may_be_stored_makes_the_link_wait_before_it_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    async def pause(_: Conversation, seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(Conversation, "_pause", pause)
    async with talking(tmp_path) as talk:
        await talk.receiver.welcome()
        await talk.receiver.open_run()
        await talk.receiver.batch()
        talk.receiver.say(m.Nack(0, "timed_out", uncertain=True))
        await talk.receiver.hear(m.OpenRun)
        assert len(pauses) == 1
        assert pauses[0] > 0


async def test_a_refusal_for_the_clock_makes_the_forwarder_leave_and_learn_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def pause(*_: object) -> None:
        return

    monkeypatch.setattr(Conversation, "_pause", pause)
    async with talking(tmp_path) as talk:
        await talk.receiver.welcome()
        await talk.receiver.open_run()
        await talk.receiver.batch()
        talk.receiver.say(m.Nack(0, "clock"))
        await talk.receiver.hear(m.Report)
        assert "clock" in (await talk.receiver.hear(m.Goaway)).reason


async def test_a_link_that_is_lost_with_a_batch_on_it_leaves_that_batch_uncertain(tmp_path: Path) -> None:
    async with talking(tmp_path) as talk:
        await talk.receiver.welcome()
        await talk.receiver.open_run()
        await talk.receiver.batch()
        talk.receiver.link.abort()
        with pytest.raises(LinkError, match="cut"):
            await talk.ends()
        run = talk.backlog.head_run()
        assert run is not None
        unknown = m.Run(run.number, TOPIC, TOPIC_ID, 0, 7, b"grant", 0, 1_000_000)
        plan = await talk.delivery.plan(run, WELCOME, unknown)
        assert isinstance(plan, Wait), "a late copy may still be stored"


@pytest.mark.parametrize("code", [Code.NOT_ALLOWED, Code.SUPERSEDED])
async def test_a_refused_hello_ends_the_link_with_the_receiver_s_reason(tmp_path: Path, code: Code) -> None:
    async with talking(tmp_path) as talk:
        await talk.receiver.hear(m.Hello)
        talk.receiver.say(m.Error(str(code), "because"))
        with pytest.raises(LinkRefused, match="because") as refused:
            await talk.ends()
        assert refused.value.code is code
        assert not talk.conversation.welcomed


async def test_a_receiver_that_writes_to_another_topic_is_refused_and_gets_the_reason(tmp_path: Path) -> None:
    async with talking(tmp_path, topic="mine") as talk:
        await talk.receiver.welcome()
        error = await talk.receiver.hear(m.Error)
        assert (error.code, "'http', not to 'mine'" in error.text) == ("policy", True)
        talk.receiver.link.abort()
        with pytest.raises(ProtocolError, match="policy"):
            await talk.ends()


async def test_an_answer_that_nobody_asked_for_ends_the_link_and_the_receiver_gets_the_reason(tmp_path: Path) -> None:
    async with talking(tmp_path, batches=0) as talk:
        await talk.receiver.welcome()
        await talk.receiver.hear_nothing()
        frame = b"\x94\x06\x00\x00\x00"  # an ACK of batch 0
        talk.receiver.link.write(len(frame).to_bytes(4, "big") + frame)
        assert (await talk.receiver.hear(m.Error)).code == "unexpected_message"
        talk.receiver.link.abort()
        with pytest.raises(ProtocolError, match="Ack while ready"):
            await talk.ends()
