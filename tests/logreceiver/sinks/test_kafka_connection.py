"""Connections to brokers that end SASL sessions: replaced in time, without a word to what is under way."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.conn import AIOKafkaConnection
from aiokafka.protocol.admin import ListGroupsRequest, SaslAuthenticateRequest

from logreceiver.sinks.kafka import connection
from logreceiver.sinks.kafka.connection import Connection


class Clock:
    """Time, and connections that are open as long as the test lasts."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.made: list[Connection] = []

    def monotonic(self) -> float:
        return self.now

    def connection(self) -> Connection:
        self.made.append(Connection("localhost", 1))
        return self.made[-1]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    made = Clock()
    monkeypatch.setattr(connection, "time", made)
    monkeypatch.setattr(AIOKafkaConnection, "connected", lambda one: one in made.made)

    def send(_: object, request: Any, expect_response: bool = True) -> Awaitable[Any]:
        async def answer() -> Any:
            return SimpleNamespace(session_lifetime_ms=request.lifetime_ms)

        return answer()

    monkeypatch.setattr(AIOKafkaConnection, "send", send)
    yield made
    made.made.clear()


class Authenticate(SaslAuthenticateRequest):  # type: ignore[misc]
    """A request to which the broker answers that the session lasts so long."""

    def __init__(self, lifetime_ms: int) -> None:
        super().__init__(b"")
        self.lifetime_ms = lifetime_ms


async def test_a_connection_is_used_for_most_of_its_session(clock: Clock) -> None:
    one = clock.connection()
    assert one.connected()
    await one.send(Authenticate(10_000))
    clock.now += 7.9
    assert one.connected()
    clock.now += 0.2
    assert not one.connected()
    assert one.is_used_up


async def test_a_session_without_an_end_is_used_for_ever(clock: Clock) -> None:
    one = clock.connection()
    await one.send(Authenticate(0))
    clock.now += 1e6
    assert one.connected()


async def test_only_the_answer_to_an_authentication_says_how_long_a_session_is(clock: Clock) -> None:
    one, request = clock.connection(), ListGroupsRequest()
    request.lifetime_ms = 1
    await one.send(request)
    clock.now += 1e6
    assert one.connected()
