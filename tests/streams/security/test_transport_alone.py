"""Links whose other end never answers."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

from streams.security import stacks, transport
from streams.security.modes import MODES
from tests.support.tls import Parties


async def test_a_handshake_that_fails_while_nobody_waits_is_no_error_of_asyncio(tmp_path: Path) -> None:
    reported: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    link = transport.Link(stacks.client(MODES["hybrid"], Parties(tmp_path).forwarder).endpoint("localhost"))
    link.connection_lost(ConnectionResetError())
    assert link.established.done()
    del link
    gc.collect()
    assert reported == []
