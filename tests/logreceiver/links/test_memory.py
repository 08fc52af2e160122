"""Batches that are announced and never come, or are too long: what they cost, and whom they hold up."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Hashable

import pytest
import uvloop
from msgspec.structs import replace

from logreceiver.config import Limits
from logreceiver.links import hearing
from logreceiver.links.conduct import Conduct
from logreceiver.links.convoy import Convoy
from streams.config.units import KIB, MIB
from streams.errors import Code
from streams.records.batch import Codec
from streams.turns import Turns
from streams.wire import messages as m
from tests.logreceiver.links.test_session import CONFIG, HELLO, Forwarder, Serving, serving
from tests.support.batches import batch
from tests.support.patience import PATIENCE_SECONDS
from tests.support.plaintext import FORWARDER

SMALL = replace(CONFIG, limits=Limits(max_memory_bytes=16 * MIB))
SIZE = 1_000_000


async def running(receiver: Serving, number: int, *, identity: str = "spiffe://test/greedy") -> Forwarder:
    forwarder, _ = await receiver.link(replace(FORWARDER, identities=(identity,)))
    await forwarder.run(replace(HELLO, forwarder_id=str(number)))
    return forwarder


def begin(forwarder: Forwarder, size: int = SIZE) -> bytes:
    """Send the first piece of a batch; returns the rest."""
    frame = b"".join(bytes(part) for part in forwarder._wire.send(m.Batch(0, 1, 10, memoryview(bytes(size)))))
    forwarder.link.write(frame[:1000])
    return frame[1000:]


async def settled(receiver: Serving, used: int) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while receiver.shared.budget._used != used:
            await asyncio.sleep(0.001)


async def test_unfinished_batches_use_up_the_part_of_their_identity_and_hold_up_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hearing, "PING_SECONDS", 0.02)
    async with serving(SMALL) as receiver:
        greedy = [await running(receiver, number) for number in range(10)]
        rests = [begin(each) for each in greedy]
        held = 3 * (SIZE + 16 + hearing.ON_THE_WAY_BYTES)  # a quarter of 16 MiB has no room for four
        async with asyncio.timeout(PATIENCE_SECONDS):
            while receiver.shared.budget._used < held - 100:
                await asyncio.sleep(0.001)
        assert receiver.shared.budget._used <= 4 * MIB
        calm = await running(receiver, 99, identity="spiffe://test/calm")
        calm.send(batch(7, 0))
        await calm.hear(m.Ack)
        await greedy[-1].hear(m.Ping)  # it is held up, and told that we are there
        greedy[-1].say(m.Pong(1))
        greedy[0].link.abort()
        greedy[3].link.write(rests[3])
        greedy[3].say(m.Ping(5))
        while not isinstance(answer := await greedy[3].next(), m.Nack):
            assert isinstance(answer, m.Ping | m.Pong)
        assert answer.code == Code.CORRUPT, "it was taken once there was room"


def test_what_waits_for_memory_is_not_read_on_whichever_event_loop() -> None:
    async def flood() -> list[int]:
        async with serving(SMALL) as receiver:
            for number in range(8):
                forwarder = await running(receiver, number)
                forwarder.link.write(begin(forwarder)[:-1000])
            async with asyncio.timeout(PATIENCE_SECONDS):
                while receiver.shared.budget._used < 3 * SIZE:
                    await asyncio.sleep(0.001)
            await asyncio.sleep(0.2)
            assert receiver.shared.budget._used <= 4 * MIB
            assert receiver.shared.budget._taken > receiver.shared.budget._used, "what waits counts"
            ends = [session._link for session in receiver.shared.sessions.values()]  # type: ignore[attr-defined]
            return [link.heard_bytes for link in ends if link._is_held]

    for found in (asyncio.run(flood()), uvloop.run(flood())):
        assert found
        assert max(found) <= 3 * hearing.CALM_READ_BYTES


async def test_what_a_link_held_is_free_when_it_ends() -> None:
    async with serving(SMALL) as receiver:
        forwarder = await running(receiver, 0)
        begin(forwarder)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not receiver.shared.budget._used:
                await asyncio.sleep(0.001)
        (session,) = receiver.shared.sessions.values()
        forwarder.link.abort()
        await settled(receiver, 0)
        assert session._connection.missing_bytes == 4, "its memory is free before it is counted so"  # type: ignore[attr-defined]


async def test_what_is_stored_is_free_again() -> None:
    async with serving(SMALL) as receiver:
        forwarder = await running(receiver, 0)
        receiver.sink.open.clear()
        made = batch(7, 0)
        forwarder.send(made)
        await settled(receiver, len(made))
        receiver.sink.open.set()
        await forwarder.hear(m.Ack)
        await settled(receiver, 0)


async def test_the_memory_of_a_batch_that_has_come_is_not_given_away_before_its_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hearing, "PING_SECONDS", 0.02)
    async with serving(SMALL) as receiver:
        budget = receiver.shared.budget
        forwarder, _ = await receiver.link()
        run = await forwarder.run()
        receiver.sink.open.clear()
        made = batch(run.producer_id, 0, records=[b'{"text":"%s"}' % (b"x" * SIZE)], codec=Codec.NONE)
        frame = b"".join(bytes(part) for part in forwarder._wire.send(m.Batch(0, 1, 1, made)))
        budget.add("somebody", 16 * MIB - len(frame) - hearing.ON_THE_WAY_BYTES)
        forwarder.link.write(frame[:1000])
        await settled(receiver, 16 * MIB - 4)
        waiting = await running(receiver, 1)
        begin(waiting)
        await waiting.hear(m.Ping)
        forwarder.link.write(frame[1000:])
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not receiver.sink.produced:
                await asyncio.sleep(0.001)
        assert budget._used <= 16 * MIB
        receiver.sink.open.set()
        await forwarder.hear(m.Ack)


@pytest.mark.parametrize("scarce", [False, True])
async def test_a_batch_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, scarce: bool) -> None:
    monkeypatch.setattr(hearing, "IDLE_SECONDS", 0.2)
    monkeypatch.setattr(hearing, "SLOW_SECONDS" if scarce else "FRAME_SECONDS", 0.2)
    monkeypatch.setattr(hearing, "LEAST_BYTES_PER_SECOND", 10_000)
    async with serving(SMALL) as receiver:
        if scarce:
            receiver.shared.budget.add("somebody", 10 * MIB)
        forwarder = await running(receiver, 0)
        rest = begin(forwarder)
        talking = asyncio.create_task(_trickle(forwarder, rest))
        assert "bytes of a batch came" in await forwarder.refused(Code.TIMEOUT)
        talking.cancel()


async def _trickle(forwarder: Forwarder, rest: bytes) -> None:
    for at in range(len(rest)):
        forwarder.link.write(rest[at : at + 1])
        await asyncio.sleep(0.01)


async def test_a_batch_beyond_the_topics_limit_is_read_past_and_refused_for_good_and_the_link_goes_on() -> None:
    async with serving(SMALL) as receiver:
        forwarder = await running(receiver, 0)
        forwarder.send(memoryview(bytes(5 * MIB)), batch(7, 10))
        nack = await forwarder.hear(m.Nack)
        assert (nack.seq, nack.code, nack.permanent) == (0, "too_large", True)
        assert "more than topic http takes" in nack.text
        assert (await forwarder.hear(m.Nack)).code == "not_tried"
        assert receiver.sink.produced == []
        assert receiver.total("logreceiver_records_total", outcome="refused") == 0, "nobody has seen the records"
        forwarder.say(m.OpenRun(1, "http", 0, 7, 0, b""))
        await forwarder.hear(m.Nack)
        forwarder.say(m.OpenRun(2))
        await forwarder.hear(m.Run)
        assert receiver.shared.budget._used == 0


@pytest.mark.parametrize("kind", ["read past", "small"])
async def test_what_is_beyond_the_share_is_read_in_turns_with_other_links(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(Conduct, "BATCHES_AT_ONCE", 5.0)
    monkeypatch.setattr(Conduct, "BATCHES_PER_SECOND", 0.001)
    taken = passed = 0

    class Counted(Turns):
        async def take(self, who: Hashable) -> None:
            nonlocal taken
            taken += 1
            await super().take(who)

    class Watched(Convoy):
        @contextlib.asynccontextmanager
        async def passing(self, who: Hashable) -> AsyncIterator[None]:
            nonlocal passed
            passed += 1
            async with super().passing(who):
                yield

    async with serving(SMALL) as receiver:
        receiver.shared.turns, receiver.shared.convoy = Counted(), Watched()
        forwarder = await running(receiver, 0)
        if kind == "read past":
            rest = begin(forwarder, 2 * MIB)
            for at in range(0, len(rest), 16 * KIB):  # as TLS records come
                forwarder.link.write(rest[at : at + 16 * KIB])
            await forwarder.hear(m.Nack)
            assert taken >= 2 * MIB // (16 * KIB)
            return
        for number in range(10):
            assert taken == max(number - 5, 0)
            forwarder.send(batch(7, 10 * number))
            await forwarder.hear(m.Ack)
        assert passed == 5, "those go to the sink by turns, too"
