"""Links whose other end never answers, or never says anything."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from pathlib import Path

import pytest

from streams.errors import Flooded, LinkError
from streams.security import stacks, transport
from streams.security.arriving import FREE_BYTES
from streams.security.connecting import connect
from streams.security.modes import MODES
from streams.security.tls13 import party as tls13
from streams.security.tls13.messages import encode_key_update
from streams.security.tls13.names import ContentType
from tests.support.installation import eventually
from tests.support.plaintext import links
from tests.support.tls import Parties, dial, echo


async def test_a_handshake_that_fails_while_nobody_waits_is_no_error_of_asyncio(tmp_path: Path) -> None:
    reported: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    link = transport.Link(stacks.client(MODES["hybrid"], Parties(tmp_path).forwarder).endpoint("localhost"))
    link.connection_lost(ConnectionResetError())
    assert link.established.done()
    del link
    gc.collect()
    assert reported == []


@pytest.mark.parametrize("mode", ["hybrid", "kemtls"])
async def test_a_peer_that_only_renews_its_keys_is_left_and_holds_up_nobody(tmp_path: Path, mode: str) -> None:
    parties = Parties(tmp_path)
    async with echo(parties.receiver, [mode]) as server:
        files = stacks.files_for(MODES[mode], parties.forwarder)
        flooding = await connect(server.listener.address, tls13.client(MODES[mode], files), server_name="localhost")
        calm = await dial(server, parties.forwarder, mode)
        writer = flooding._endpoint._writer  # type: ignore[attr-defined]
        for _ in range(8000):
            writer.write(ContentType.HANDSHAKE, encode_key_update(request=True))
            writer.update()
        flooding._flush()
        flooding._use.useful = 1 << 40  # it does not mind the answers
        calm.write(b"x")
        assert await calm.receive() == b"x"
        flooded, served = server.links
        assert flooded._use.arrived < 2 * FREE_BYTES, "answered after a few pieces of the flood"
        with pytest.raises(LinkError):
            await flooding.receive()
        assert isinstance(flooded._error, Flooded)
        assert flooded._use.arrived < 2 * FREE_BYTES
        assert served._error is None
        await calm.close()


async def test_a_peer_that_reads_no_answers_is_not_read(tmp_path: Path) -> None:
    async with links() as (near, far):
        far.pause_writing()
        far._endpoint.write(b"an answer of TLS itself")
        near.write(b"x")
        assert await far.receive() == b"x"
        near.write(b"y")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await far.receive()
        far.resume_writing()
        assert await far.receive() == b"y"


@pytest.mark.parametrize("how", ["goodbye", "end", "cut"])
async def test_ends_of_links_are_taken_in_turns_with_what_other_peers_cause(how: str) -> None:
    async with links() as (near, far):
        reading = asyncio.ensure_future(far.receive())
        await asyncio.sleep(0)
        waits: list[Callable[[], None]] = []
        far._turns.ask = lambda who, work, **_: waits.append(work)  # type: ignore[method-assign]
        if how == "goodbye":
            near._endpoint.close()
            near._flush()
        elif how == "end":
            near._transport.write_eof()  # type: ignore[union-attr]
        else:
            far.abort()
        await eventually(lambda: waits)
        await asyncio.sleep(0.02)
        assert not reading.done()
        while waits:
            waits.pop(0)()
            await asyncio.sleep(0.01)
        assert reading.done()
        assert (reading.exception() is None) == (how == "goodbye")
