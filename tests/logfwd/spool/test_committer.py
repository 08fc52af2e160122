"""The thread of a spool: whatever happens in it, nobody waits for it in vain, and its stream is restarted."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from logfwd.spool.notes import Notes
from logfwd.spool.room import Room
from logfwd.spool.store import Spool
from streams.errors import SpoolError
from tests.support.spools import position

LIMIT_SECONDS = 60


def notes(offset: int) -> Notes:
    made = Notes()
    made.put_positions({"a": position(offset)}, [])
    return made


async def settled(future: asyncio.Future[None]) -> BaseException | None:
    await asyncio.wait({future}, timeout=LIMIT_SECONDS)
    return future.exception()


@pytest.mark.parametrize("error", [MemoryError("no more"), OSError(30, "read-only"), RuntimeError("a fault")])
async def test_an_error_that_nobody_expected_fails_every_commit_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(_: Notes, __: sqlite3.Connection) -> None:
        raise error

    async with Spool(tmp_path / "s.spool") as spool:
        await spool.commit(notes(1))
        never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        watching = asyncio.ensure_future(spool.raise_when_broken(until=never))
        monkeypatch.setattr(Notes, "carry_out", fail)
        failing = [spool.commit(notes(number)) for number in (2, 3)]
        for each in failing:
            assert isinstance(await settled(each), SpoolError)
        assert isinstance(await settled(watching), SpoolError)
        monkeypatch.undo()
        assert isinstance(await settled(spool.commit(notes(4))), SpoolError)
    async with Spool(tmp_path / "s.spool") as spool:
        assert spool.positions == {"a": position(1)}


async def test_an_error_after_a_commit_leaves_no_question_unanswered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Room) -> None:
        raise OSError(30, "read-only")

    monkeypatch.setattr(Room, "remake_reserve", fail)
    async with Spool(tmp_path / "s.spool") as spool:
        assert await settled(spool.commit(notes(1))) is None
        with pytest.raises(SpoolError, match="read-only"):
            async with asyncio.timeout(LIMIT_SECONDS):
                await spool.raise_when_broken(until=asyncio.get_running_loop().create_future())
    monkeypatch.undo()
    async with Spool(tmp_path / "s.spool") as spool:
        assert spool.positions == {"a": position(1)}


async def test_watching_a_spool_ends_with_what_needs_it(tmp_path: Path) -> None:
    async with Spool(tmp_path / "s.spool") as spool:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        async with asyncio.timeout(LIMIT_SECONDS):
            await spool.raise_when_broken(until=done)
