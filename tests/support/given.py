"""A source that hands over what a test gives it, and a gate that holds its commits back."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncGenerator, Mapping
from typing import cast

import pytest

from logfwd.sources.position import Block, Position, Receipt
from logfwd.spool.notes import Notes
from tests.support.patience import PATIENCE_SECONDS


class Given:
    """A source that hands over what the test gives it."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Block | None] = asyncio.Queue()
        self.kept_back: list[Block] = []
        self.durable: list[Mapping[str, Position]] = []
        """What it heard to be committed."""

    def give(self, *numbers: int, receipt: Receipt | None = None, position: int | None = None) -> None:
        self.queue.put_nowait(block(*numbers, receipt=receipt, position=position))

    async def blocks(self, positions: Mapping[str, Position]) -> AsyncGenerator[Block, None]:
        while None not in (given := [await self.queue.get()]):
            yield cast(Block, given.pop())  # and keep it no longer

    def committed(self, positions: Mapping[str, Position]) -> None:
        self.durable.append(dict(positions))

    def forgotten(self) -> list[str]:
        return []

    def stop(self) -> list[Block]:
        return self.kept_back

    def health(self) -> Mapping[str, str]:
        return {}

    def lag_bytes(self) -> int:
        return 0


def record(number: int) -> bytes:
    return b'{"n":%d}' % number


def at(offset: int) -> Position:
    return Position("given", b"%d" % offset)


def block(*numbers: int, receipt: Receipt | None = None, position: int | None = None) -> Block:
    positions = None if position is None else {"own": at(position)}
    data = b"".join(record(number) + b"\n" for number in numbers)
    return Block(data, 1, receipt=receipt, positions=positions)


class Gate:
    """Holds commits back."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.open.set()
        self.fails = False
        commit = Notes.carry_out

        def carry_out(notes: Notes, connection: sqlite3.Connection) -> None:
            self.open.wait(PATIENCE_SECONDS)
            if self.fails:
                raise sqlite3.OperationalError("disk I/O error")
            commit(notes, connection)

        monkeypatch.setattr(Notes, "carry_out", carry_out)
