"""What becomes of handshakes that are under way when a listener changes."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from streams.security import modes, stacks
from streams.security.transport import Link
from tests.support.installation import eventually
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
            async with asyncio.timeout(5):
                assert await link.receive() == b""
            assert (await server.failure()).reason == "outdated"
        else:
            link.write(b"x")
            assert await link.receive() == b"x"
        assert bool(server.links) is not ends
        await link.close()
