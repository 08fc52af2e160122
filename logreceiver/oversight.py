"""Ends links that stay too long: forwarders replace theirs, but that is their good will.

Looks at every link once a second, by the wall clock where a certificate ends, so that a clock that is set is noticed.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from collections.abc import AsyncIterator, Callable, Iterable

from logreceiver.links.session import Session
from logreceiver.links.shared import Shared
from streams import tasks

LOOK_SECONDS = 1.0
AT_ONCE = 50
"""Links that are looked at before the loop turns to other work."""


@contextlib.asynccontextmanager
async def overseeing(
    sessions: Callable[[], Iterable[Session]], shared: Shared, judge: Callable[[], object]
) -> AsyncIterator[None]:
    """Look until the block is left. `judge` is called when a revocation list that is required was not renewed."""

    async def look() -> None:
        overdue = 0
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for number, session in enumerate(list(sessions()), 1):
                if verdict := session.overdue():
                    session.carry_out(verdict)
                if number % AT_ONCE == 0:
                    await asyncio.sleep(0)
            now = datetime.datetime.now(datetime.UTC)
            before, overdue = overdue, shared.revoked.overdue(now) if shared.config.crl_required else 0
            if overdue > before:
                judge()

    async with tasks.running("oversight", look):
        yield
