"""What becomes of handshakes that are under way when a listener changes, and of links when they have ended."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import weakref
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import pytest

from streams.errors import HandshakeFailed, LinkError
from streams.security import modes, stacks
from streams.security.connecting import connect
from streams.security.transport import Link
from streams.turns import Turns
from tests.support.installation import eventually
from tests.support.patience import PATIENCE_SECONDS
from tests.support.tls import Parties, echo


@pytest.mark.parametrize("ends", [True, False], ids=["other modes", "a new certificate"])
async def test_a_handshake_that_began_before_a_change_makes_a_link_unless_it_is_one_of_modes(
    tmp_path: Path, ends: bool
) -> None:
    parties = Parties(tmp_path)
    classical, hybrid = modes.MODES["classical"], modes.MODES["hybrid"]
    async with echo(parties.receiver, ["classical"]) as server:
        host, port = server.listener.address.rsplit(":", 1)
        sock = socket.create_connection((host, int(port)))
        sock.setblocking(False)
        await eventually(lambda: len(server.listener._pending))
        server.listener.replace(stacks.server([hybrid if ends else classical], parties.receiver), end_handshakes=ends)
        link = Link(stacks.client(classical, parties.forwarder).endpoint("localhost"))
        await asyncio.get_running_loop().create_connection(lambda: link, sock=sock)
        await link.establish(5)
        if ends:
            async with asyncio.timeout(PATIENCE_SECONDS):
                assert await link.receive() == b""
            assert (await server.failure()).reason == "outdated"
        else:
            link.write(b"x")
            assert await link.receive() == b"x"
        assert bool(server.links) is not ends
        await link.close()


@pytest.mark.parametrize("end", ["goodbye", "cut", "no handshake", "refused"])
async def test_what_has_ended_is_freed_at_once_and_not_by_the_next_collection_of_garbage(
    tmp_path: Path, end: str
) -> None:
    parties = Parties(tmp_path)
    async with echo(parties.receiver, ["hybrid"]) as server:
        seen, keep = list[weakref.ref[Link]](), server.listener._keep

        async def kept(link: Link, *rest: Any) -> None:
            seen.append(weakref.ref(link))
            await keep(link, *rest)

        async def serve(link: Link) -> None:
            with contextlib.suppress(LinkError):
                while await link.receive():
                    pass
            await link.close()

        server.listener._keep, server.listener._on_link = kept, serve  # type: ignore[assignment, method-assign]
        gc.disable()
        try:
            await _come_and_go(server.listener.address, parties, end)
            await eventually(lambda: seen and not server.listener._tasks)
            await eventually(lambda: seen[0]() is None)
        finally:
            gc.enable()


async def _come_and_go(address: str, parties: Parties, end: str) -> None:
    if end == "no handshake":
        _, writer = await asyncio.open_connection(*address.rsplit(":", 1))
        writer.close()
        return
    mode = "classical" if end == "refused" else "hybrid"
    try:
        link = await connect(address, stacks.client(modes.MODES[mode], parties.forwarder), server_name="localhost")
    except HandshakeFailed:
        return
    if end == "goodbye":
        await link.close()
    link.abort()


async def test_handshakes_that_have_begun_are_finished_before_others_begin(tmp_path: Path) -> None:
    steps = list[bool]()

    class Noted(Turns):
        def ask(self, who: Hashable, work: Callable[[], None], *, goes_on: bool = False) -> None:
            def noted() -> None:
                steps.append(goes_on)
                work()

            super().ask(who, noted, goes_on=goes_on)

    parties = Parties(tmp_path)
    count = 20
    async with echo(parties.receiver, ["hybrid"], turns=Noted()) as server:
        party = stacks.client(modes.MODES["hybrid"], parties.forwarder)
        links = await asyncio.gather(
            *(connect(server.listener.address, party, server_name="localhost") for _ in range(count))
        )
        await eventually(lambda: len(steps) >= 2 * count)
        assert steps.count(False) == count
        assert steps.index(True) < count // 2, "the second step of the first ones"
        for link in links:
            link.abort()


async def test_handshakes_that_fail_at_once_are_reported_in_turns(tmp_path: Path) -> None:
    taken = 0

    class Counted(Turns):
        async def take(self, who: Hashable) -> None:
            nonlocal taken
            taken += 1
            await super().take(who)

    parties = Parties(tmp_path)
    async with echo(parties.receiver, ["hybrid"], turns=Counted()) as server:
        host, port = server.listener.address.rsplit(":", 1)
        socks = [socket.create_connection((host, int(port))) for _ in range(20)]
        await eventually(lambda: len(server.listener._pending) == 20)
        for sock in socks:
            sock.close()
        await eventually(lambda: not server.listener._tasks)
    assert taken == 20
