"""A worker's half of what the parent asks (together.py): prepares a reload, takes or drops it; says how it does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import msgspec
import structlog

from logreceiver.acts import QUESTIONS
from logreceiver.config import ReceiverConfig
from logreceiver.reloading import Load, Report
from logreceiver.service import Service
from streams import tasks
from streams.config.changes import digest

log = structlog.get_logger("logreceiver")


@contextlib.asynccontextmanager
async def following(
    parent: socket.socket, service: Service, load: Load, took: Callable[[ReceiverConfig], None]
) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Do what the parent asks until the block is left; `took` gets what was taken. Yields what asks for a reload."""
    reader, writer = await asyncio.open_connection(sock=parent)
    worker = _Worker(reader, writer, service, load, took)
    worker.say(ready=digest(service.config), watches=service.config.watch)
    async with tasks.running("reloads of all workers", worker.listen):
        yield worker.ask_for_one


class _Worker:
    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        service: Service,
        load: Load,
        took: Callable[[ReceiverConfig], None],
    ) -> None:
        self._reader, self._writer = reader, writer
        self._service, self._load, self._took = service, load, took
        self._preparing: asyncio.Task[Report] | None = None

    def say(self, **words: object) -> None:
        self._writer.write(json.dumps(words).encode() + b"\n")

    async def ask_for_one(self) -> None:
        """Have the parent reload all workers."""
        self.say(wanted=True)

    async def listen(self) -> None:
        while line := await self._reader.readline():
            asked = json.loads(line)
            if asked["act"] == "prepare":
                self._preparing = asyncio.create_task(self._prepare(asked))  # a drop may come before it is done
            elif asked["act"] == "take":
                self._answer(asked, await self._take())
            elif asked["act"] == "drop":
                await self._drop(asked)
            else:
                self.say(question=asked["question"], answer=await QUESTIONS[asked["act"]](self._service))

    async def _prepare(self, asked: Mapping[str, Any]) -> Report:
        try:
            report = await self._service.prepare(self._load, check=asked["check"], confirm=asked["confirm"])
        except Exception as error:  # the top of a task
            log.exception("reload failed", reason=f"{type(error).__name__}: {error}")
            report = Report(outcome="refused", reason=f"{type(error).__name__}: {error}", remedy="report it")
        self._answer(asked, report)
        return report

    async def _take(self) -> Report:
        report = await self._service.take()
        if report.outcome == "taken":
            self._took(self._service.config)
        return report

    async def _drop(self, asked: Mapping[str, Any]) -> None:
        task, self._preparing = self._preparing, None
        if task is None:
            return
        task.cancel()
        (report,) = await asyncio.gather(task, return_exceptions=True)
        is_prepared = isinstance(report, Report) and report.outcome != "refused"
        if not asked["check"] and (is_prepared or task.cancelled()):
            await self._service.drop(asked["reason"], asked["remedy"])

    def _answer(self, asked: Mapping[str, Any], report: Report) -> None:
        answer = msgspec.to_builtins(report) | {"in_use": digest(self._service.config)}
        self.say(question=asked["question"], answer=answer)
