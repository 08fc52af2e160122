"""Links to names with several addresses, some of which are silent, wrong or refuse: over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from streams import names
from streams.addresses import split_address
from streams.errors import HandshakeFailed, LinkError, NotListening
from streams.security import connecting, stacks
from streams.security.connecting import connect
from streams.security.modes import MODES
from streams.security.transport import Link
from tests.support.tls import Echo, Parties, echo

NAME = "localhost:7443"


class Dialling:
    """A name with the addresses that a test gives it, and a good receiver."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, parties: Parties, server: Echo) -> None:
        self._monkeypatch = monkeypatch
        self._party = stacks.client(MODES["hybrid"], parties.forwarder)
        host, port = split_address(server.listener.address)
        self.good = (host.replace("localhost", "127.0.0.1"), port)
        self.failures: list[HandshakeFailed] = []

    async def __call__(self, *targets: tuple[str, int], name: str = NAME, seconds: float = 20.0) -> Link:
        async def found(*_: object) -> list[names.AddressInfo]:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", target) for target in targets]

        self._monkeypatch.setattr(names, "addresses", found)
        return await connect(
            name,
            self._party,
            connect_timeout=seconds,
            handshake_timeout=seconds,
            on_failure=self.failures.append,
        )


@pytest.fixture
async def dial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Dialling]:
    parties = Parties(tmp_path)
    async with echo(parties.receiver, ["hybrid"], address="127.0.0.1:0") as server:
        yield Dialling(monkeypatch, parties, server)


async def is_used(link: Link) -> None:
    link.write(b"x")
    assert await link.receive() == b"x"
    await link.close()


@contextlib.contextmanager
def silent() -> Iterator[tuple[str, int]]:
    """An address that swallows attempts to connect: what waits to be accepted there is full."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(4):
            filling = stack.enter_context(socket.socket())
            filling.setblocking(False)
            filling.connect_ex(listening.getsockname())
        yield listening.getsockname()


@contextlib.contextmanager
def refusing() -> Iterator[tuple[str, int]]:
    """An address where nothing listens, and nothing else will."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()


async def test_an_address_that_swallows_connections_is_not_waited_for(dial: Dialling) -> None:
    with silent() as hole:
        await is_used(await dial(hole, dial.good))
        with pytest.raises(LinkError, match="no connection within"):
            await dial(hole, seconds=0.3)


async def test_an_address_that_says_nothing_or_something_else_is_left_for_the_next(
    dial: Dialling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "PATIENCE_SECONDS", 0.2)

    async def talks(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.net\r\n")
        writer.close()

    async def listens(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with (
        await asyncio.start_server(talks, "127.0.0.1", 0) as wrong,
        await asyncio.start_server(listens, "127.0.0.1", 0) as mute,
    ):
        await is_used(await dial(mute.sockets[0].getsockname(), wrong.sockets[0].getsockname(), dial.good))
        assert [failure.reason for failure in dial.failures] == ["timeout", "not_tls"]
        with pytest.raises(HandshakeFailed):
            await dial(wrong.sockets[0].getsockname())
        assert len(dial.failures) == 2, "the last failure is raised"


async def test_only_where_every_address_refuses_nothing_listens(dial: Dialling) -> None:
    with refusing() as one, refusing() as other, silent() as hole:
        with pytest.raises(NotListening, match="cannot connect"):
            await dial(one, other)
        with pytest.raises(LinkError) as failed:
            await dial(one, hole, seconds=0.5)
        assert not isinstance(failed.value, NotListening)
        await is_used(await dial(one, other, dial.good))


async def test_a_name_may_end_in_a_dot(dial: Dialling) -> None:
    await is_used(await dial(dial.good, name="localhost.:7443"))


async def test_a_name_that_cannot_be_resolved_is_told(dial: Dialling, monkeypatch: pytest.MonkeyPatch) -> None:
    party = dial._party
    with pytest.raises(LinkError, match="cannot be resolved"):
        await connect("no-such-host.invalid:1", party)

    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(names, "addresses", never)
    with pytest.raises(LinkError, match="not resolved within"):
        await connect(NAME, party, connect_timeout=0.05)
