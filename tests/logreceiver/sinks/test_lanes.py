"""Which connection a batch takes: gathering, setting apart, and what is certain when something breaks."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Sequence

import pytest

from logreceiver.sinks import Kind, Outcome
from logreceiver.sinks.kafka import lanes
from logreceiver.sinks.kafka.coalesced import Coalesced
from logreceiver.sinks.kafka.lanes import Item, Lanes
from streams.errors import Code, SinkUnavailable
from tests.support.patience import PATIENCE_SECONDS

STORED = Outcome(Kind.STORED, 0)
SLOW = Outcome(Kind.UNCERTAIN, code=Code.TIMED_OUT)
BATCH = memoryview(b"batch")


class Connection:
    def __init__(self) -> None:
        self.open = True

    def connected(self) -> bool:
        return self.open

    def close(self) -> None:
        self.open = False


class Request:
    """One request that the broker received; it answers when the test says so."""

    def __init__(self, connection: Connection, items: Sequence[Item], seconds: float) -> None:
        self.connection = connection
        self.topics = [item.partition[0] for item in items]
        self.seconds = seconds
        self.answer: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()

    def store(self) -> None:
        self.answer.set_result([STORED] * len(self.topics))


class Broker:
    """Takes connections and requests, and remembers them."""

    def __init__(self) -> None:
        self.up = True
        self.connections: list[Connection] = []
        self.requests: asyncio.Queue[Request] = asyncio.Queue()
        self.lanes: Lanes[Connection] = Lanes(self._connect, self._send, limit_seconds=30.0)

    async def _connect(self) -> Connection:
        if not self.up:
            raise SinkUnavailable(Code.UNAVAILABLE, "no connection")
        self.connections.append(Connection())
        return self.connections[-1]

    async def _send(self, connection: Connection, items: Sequence[Item], seconds: float) -> list[Outcome]:
        request = Request(connection, items, seconds)
        self.requests.put_nowait(request)
        return await request.answer

    def submit(self, topic: str) -> asyncio.Task[Outcome]:
        return asyncio.create_task(self.lanes.submit((topic, 0), BATCH))

    async def request(self) -> Request:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.requests.get()

    async def fill(self) -> list[Request]:
        """Put one request on every shared connection."""
        for number in range(lanes.SHARED_CONNECTIONS):
            self.submit(f"busy-{number}")
        return [await self.request() for _ in range(lanes.SHARED_CONNECTIONS)]


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    made = Broker()
    yield made
    while not made.requests.empty():
        made.requests.get_nowait().store()
    await made.lanes.close()
    assert not any(connection.open for connection in made.connections)


async def test_batches_gather_while_all_connections_are_busy_one_for_each_partition(broker: Broker) -> None:
    busy = await broker.fill()
    waiting = [broker.submit(topic) for topic in ("a", "b", "a")]
    await asyncio.sleep(0)
    busy[0].store()
    gathered = await broker.request()
    assert gathered.topics == ["a", "b"]
    assert gathered.connection is busy[0].connection
    busy[1].store()
    second = await broker.request()
    assert second.topics == ["a"]
    for request in (gathered, second, *busy[2:]):
        request.store()
    assert await asyncio.gather(*waiting) == [STORED] * 3
    assert len(broker.connections) == lanes.SHARED_CONNECTIONS


async def test_a_request_with_several_partitions_has_the_short_time_limit_and_a_lone_one_the_full(
    broker: Broker,
) -> None:
    busy = await broker.fill()
    assert {request.seconds for request in busy} == {30.0}
    broker.submit("a")
    broker.submit("b")
    await asyncio.sleep(0)
    busy[0].store()
    gathered = await broker.request()
    assert gathered.seconds == lanes.SLOW_SECONDS
    for request in (gathered, *busy[1:]):
        request.store()


async def test_a_slow_partition_out_of_many_is_found_and_gets_a_connection_of_its_own(broker: Broker) -> None:
    busy = await broker.fill()
    slow, quick = broker.submit("slow"), broker.submit("quick")
    await asyncio.sleep(0)
    busy[0].store()
    gathered = await broker.request()
    gathered.answer.set_result([SLOW, STORED])
    assert (await slow, await quick) == (SLOW, STORED)
    again = broker.submit("slow")
    own = await broker.request()
    assert own.connection not in [request.connection for request in busy]
    assert own.seconds == 30.0
    own.store()
    assert await again == STORED
    for request in busy[1:]:
        request.store()


async def test_lone_slow_partitions_leave_the_shared_connections_to_others(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "SLOW_SECONDS", 0.01)
    stuck = await broker.fill()  # every shared connection carries a stuck partition
    other = broker.submit("other")
    request = await broker.request()  # …and still this one gets through
    request.store()
    assert await other == STORED
    for late in stuck:
        late.store()


async def test_a_partition_that_answers_quickly_again_shares_again(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "SLOW_SECONDS", 0.01)
    first = broker.submit("p")
    slow = await broker.request()
    other = broker.submit("q")
    (await broker.request()).store()
    await other
    while broker.lanes._busy:
        await asyncio.sleep(0)
    monkeypatch.setattr(lanes, "SLOW_SECONDS", 5.0)
    slow.store()
    await first
    second = broker.submit("p")
    own = await broker.request()
    own.store()
    await second
    third = broker.submit("p")
    shared = await broker.request()
    assert shared.connection is not own.connection
    assert shared.connection.open
    shared.store()
    await third


async def test_a_request_gathers_no_more_than_its_size_allows(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "MAX_GATHERED_BYTES", 2 * len(BATCH) + 1)
    busy = await broker.fill()
    waiting = [broker.submit(topic) for topic in ("a", "b", "c")]
    await asyncio.sleep(0)
    busy[0].store()
    first = await broker.request()
    assert first.topics == ["a", "b"]
    first.store()
    second = await broker.request()
    assert second.topics == ["c"]
    for request in (second, *busy[1:]):
        request.store()
    assert await asyncio.gather(*waiting) == [STORED] * 3


async def test_a_batch_that_waited_too_long_for_a_connection_is_refused_and_never_sent(broker: Broker) -> None:
    busy = await broker.fill()
    broker.lanes._limit_seconds = 0.0  # for batches from here on: their time is up when they are looked at
    late = broker.submit("late")
    await asyncio.sleep(0)
    busy[0].store()
    async with asyncio.timeout(PATIENCE_SECONDS):
        outcome = await late
    assert (outcome.kind, outcome.code) == (Kind.REFUSED, Code.UNAVAILABLE)
    assert broker.requests.empty()
    for request in busy[1:]:
        request.store()


async def test_slow_partitions_have_a_bounded_number_of_connections(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "MAX_APART", 2)
    busy = await broker.fill()
    topics = ["a", "b", "c"]
    first = [broker.submit(topic) for topic in topics]
    second = [broker.submit(topic) for topic in topics]
    await asyncio.sleep(0)
    busy[0].store()
    gathered = await broker.request()
    assert gathered.topics == topics
    gathered.answer.set_result([SLOW] * 3)
    requests = {request.topics[0]: request for request in [await broker.request() for _ in topics]}
    shared = {request.connection for request in (gathered, *busy)}
    assert {topic for topic, request in requests.items() if request.connection not in shared} == {"a", "b"}
    assert await asyncio.gather(*first) == [SLOW] * 3
    for request in (*requests.values(), *busy[1:]):
        request.store()
    assert await asyncio.gather(*second) == [STORED] * 3


async def test_without_a_connection_a_batch_is_refused_and_the_next_one_tries_again(broker: Broker) -> None:
    broker.up = False
    assert (await broker.submit("a")).kind is Kind.REFUSED
    broker.up = True
    later = broker.submit("a")
    (await broker.request()).store()
    assert await later == STORED


async def test_a_broken_connection_is_not_used_again(broker: Broker) -> None:
    first = broker.submit("a")
    request = await broker.request()
    request.connection.close()
    request.answer.set_result([Outcome(Kind.UNCERTAIN, code=Code.UNAVAILABLE)])
    assert (await first).kind is Kind.UNCERTAIN
    second = broker.submit("a")
    again = await broker.request()
    assert again.connection is not request.connection
    again.store()
    assert await second == STORED


async def test_a_batch_that_nobody_waits_for_any_longer_is_not_sent(broker: Broker) -> None:
    busy = await broker.fill()
    left = broker.submit("left")
    await asyncio.sleep(0)
    left.cancel()
    stays = broker.submit("stays")
    await asyncio.sleep(0)
    busy[0].store()
    request = await broker.request()
    assert request.topics == ["stays"]
    for one in (request, *busy[1:]):
        one.store()
    assert await stays == STORED


async def test_closing_refuses_what_waits_and_calls_uncertain_what_was_handed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lanes, "CLOSE_SECONDS", 0.01)
    broker = Broker()
    busy = [broker.submit(f"busy-{number}") for number in range(lanes.SHARED_CONNECTIONS)]
    for _ in busy:
        await broker.request()
    waiting = broker.submit("waiting")
    await asyncio.sleep(0)
    await broker.lanes.close()
    assert (await waiting).kind is Kind.REFUSED
    assert {outcome.kind for outcome in await asyncio.gather(*busy)} == {Kind.UNCERTAIN}
    assert (await broker.submit("late")).kind is Kind.REFUSED
    assert not any(connection.open for connection in broker.connections)


async def test_callers_that_arrive_while_a_question_is_under_way_share_the_next_one() -> None:
    coalesced: Coalesced[int] = Coalesced()
    gates = [asyncio.Event(), asyncio.Event()]
    asked = 0

    async def ask() -> int:
        nonlocal asked
        asked += 1
        number = asked
        await gates[number - 1].wait()
        return number

    first = asyncio.create_task(coalesced("p", ask))
    while not asked:
        await asyncio.sleep(0)
    later = [asyncio.create_task(coalesced("p", ask)) for _ in range(3)]
    await asyncio.sleep(0)
    gates[0].set()
    assert await first == 1
    gates[1].set()
    assert await asyncio.gather(*later) == [2, 2, 2]
    await coalesced.close()


async def test_a_call_that_fails_when_nobody_waits_any_longer_is_not_an_unhandled_error() -> None:
    unhandled: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    coalesced: Coalesced[None] = Coalesced()
    go_on = asyncio.Event()

    async def fail() -> None:
        await go_on.wait()
        raise SinkUnavailable(Code.UNAVAILABLE, "gone")

    caller = asyncio.create_task(coalesced("key", fail))
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    del caller
    go_on.set()
    for _ in range(3):
        await asyncio.sleep(0)
    gc.collect()
    assert unhandled == []
