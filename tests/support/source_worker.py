"""Runs one kind of source on a pipeline until its input is in the spool, in processes that are killed on the way.

Arguments: KIND DIRECTORY. For the points "before 1", "after 1", "before 2", … around the spool's commits it forks a
first life that dies there and a second one that goes on, and prints a line of JSON with what the spool holds then; it
ends with the point that a first life does not reach. The input is always records with the numbers below RECORDS.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Literal

import msgspec

import logfwd.spool.room
from logfwd.definition import BatchLimits
from logfwd.intake import jsonlines
from logfwd.pipeline import Pipeline
from logfwd.sources import Source
from logfwd.sources.file.source import FileTail
from logfwd.sources.front import Front, Handle, Outcome
from logfwd.sources.http.source import Requests
from logfwd.sources.settings import FileSource
from logfwd.sources.stdin import Stdin
from logfwd.sources.syslog.inbox import SyslogMessages
from logfwd.spool.committer import DIES_AT
from logfwd.spool.store import Spool
from streams.telemetry import logs
from tests.support.http_source import Listening
from tests.support.installation import eventually
from tests.support.pipelines import STREAM, pipeline_on, records_in, running
from tests.support.push_source import Push
from tests.support.syslog_clients import SyslogClient

RECORDS, IN_A_REQUEST, BLOCK_BYTES = 24, 8, 45
"""A request is several blocks, a block several records, and a few blocks are a batch."""
MAX_RECORD_BYTES = 256
INPUT = "stdin"
LIMITS = BatchLimits(max_batch_bytes=2 * BLOCK_BYTES, max_record_bytes=MAX_RECORD_BYTES, linger_seconds=0.002)
SMALL = msgspec.structs.replace(STREAM, batch=LIMITS)

Made = tuple[Source, Callable[[Pipeline], Awaitable[None]]]
"""A source, and what its input needs to be handed over: returns when all of it is durable."""
Maker = Callable[[Path, Handle], Made]


def lines(first: int, end: int) -> bytes:
    return b"".join(b'{"number":%d}\n' % number for number in range(first, end))


def file(directory: Path, _: Handle) -> Made:
    path = directory / "input.log"
    path.touch()
    source = FileTail(FileSource(paths=(str(path),)), max_record_bytes=BLOCK_BYTES, block_bytes=BLOCK_BYTES)

    async def write(pipeline: Pipeline) -> None:
        """A third of the lines when those before are durable."""
        backlog = pipeline.senders[0].backlog
        for first in range(0, RECORDS, IN_A_REQUEST):
            end = first + IN_A_REQUEST
            if path.stat().st_size < len(lines(0, end)):
                with path.open("ab") as out:
                    out.write(lines(first, end))
            await eventually(
                lambda end=end: backlog.totals.accepted >= end and all(row.committed for row in backlog.rows)  # type: ignore[misc]
            )

    return source, write


def long_lines(directory: Path, _: Handle) -> Made:
    """Every sixth line is longer than a block, a batch and a record; the beginning of one is written before its end."""
    path = directory / "input.log"
    path.touch()
    source = FileTail(FileSource(paths=(str(path),)), max_record_bytes=MAX_RECORD_BYTES, block_bytes=BLOCK_BYTES)
    lines = [b'{"number":%d,"x":"%s"}\n' % (number, b"x" * 700 * (number % 6 == 3)) for number in range(RECORDS)]
    parts = [len(jsonlines.split(line, invalid="wrap", max_record_bytes=MAX_RECORD_BYTES).values) for line in lines]

    async def write(pipeline: Pipeline) -> None:
        backlog = pipeline.senders[0].backlog
        for end in range(IN_A_REQUEST, RECORDS + 1, IN_A_REQUEST):
            data = b"".join(lines)[: len(b"".join(lines[:end])) + 300]
            with path.open("ab") as out:
                out.write(data[path.stat().st_size :])
            await eventually(
                lambda end=end: (  # type: ignore[misc]
                    backlog.totals.accepted >= sum(parts[:end]) and all(row.committed for row in backlog.rows)
                )
            )

    return source, write


def container_line(format_: Literal["cri", "docker"], text: str, *, is_end: bool) -> bytes:
    if format_ == "cri":
        return f"2026-01-31T10:00:00Z stdout {'F' if is_end else 'P'} {text}\n".encode()
    fields = {"log": text + "\n" * is_end, "stream": "stdout", "time": "2026-01-31T10:00:00Z"}
    return json.dumps(fields).encode() + b"\n"


def container(directory: Path, _: Handle, format_: Literal["cri", "docker"]) -> Made:
    """Each record in two lines, of which the first is always written before the one of the record before is durable."""
    path = directory / "0.log"
    path.touch()
    settings = FileSource(paths=(str(path),), format=format_)
    source = FileTail(settings, max_record_bytes=150, block_bytes=BLOCK_BYTES)
    halves = [
        container_line(format_, text, is_end=is_end)
        for number in range(RECORDS)
        for text, is_end in (('{"num', False), (f'ber":{number}}}', True))
    ]

    async def write(pipeline: Pipeline) -> None:
        backlog = pipeline.senders[0].backlog
        for end in range(IN_A_REQUEST, RECORDS + 1, IN_A_REQUEST):
            data = b"".join(halves[: 2 * end + 1])
            with path.open("ab") as out:
                out.write(data[path.stat().st_size :])
            await eventually(
                lambda end=end: backlog.totals.accepted >= end and all(row.committed for row in backlog.rows)  # type: ignore[misc]
            )

    return source, write


async def send_once(
    directory: Path, pipeline: Pipeline, source: Source, send: Callable[[bytes], Awaitable[object]]
) -> None:
    """A third of the lines when those before are durable, and each only in one life, whatever becomes of it."""
    sent, totals = directory / "sent", pipeline.senders[0].backlog.totals
    sent.touch()
    for first in range(sent.stat().st_size * IN_A_REQUEST, RECORDS, IN_A_REQUEST):
        with sent.open("ab") as file:
            file.write(b".")
        expected = totals.accepted + IN_A_REQUEST
        await send(lines(first, first + IN_A_REQUEST))
        await eventually(lambda: totals.accepted >= expected and not source.lag_bytes())  # noqa: B023


def stdin(directory: Path, _: Handle) -> Made:
    source = Stdin(max_record_bytes=1000, block_bytes=BLOCK_BYTES)
    writer = os.open(directory / INPUT, os.O_WRONLY)

    async def write(data: bytes) -> None:
        os.write(writer, data)

    async def write_to_its_end(pipeline: Pipeline) -> None:
        await send_once(directory, pipeline, source, write)
        os.close(writer)
        await eventually(lambda: source._ended and not source.lag_bytes())

    return source, write_to_its_end


def push(directory: Path, handle: Handle, *, with_key: bool = False) -> Made:
    source, answered = Push(handle, block_bytes=BLOCK_BYTES), directory / "answered"

    async def client(_: Pipeline) -> None:
        """Sends each request again until it is done."""
        for first in range(0, RECORDS, IN_A_REQUEST):
            while answered.stat().st_size <= first // IN_A_REQUEST:
                body, key = lines(first, first + IN_A_REQUEST), b"%d" % first if with_key else None
                if await source.send(body, key) is Outcome.DONE:
                    with answered.open("ab") as file:
                        file.write(b".")

    answered.touch()
    return source, client


def push_with_key(directory: Path, handle: Handle) -> Made:
    return push(directory, handle, with_key=True)


def http(directory: Path, handle: Handle, *, with_key: bool = False) -> Made:
    listening, answered = Listening(handle.front, directory, block_bytes=BLOCK_BYTES), directory / "answered"

    async def client(_: Pipeline) -> None:
        """Sends each request again until it is stored."""
        for first in range(0, RECORDS, IN_A_REQUEST):
            while answered.stat().st_size <= first // IN_A_REQUEST:
                reply = await listening.post(lines(first, first + IN_A_REQUEST), f"k{first}" if with_key else "")
                if reply is not None and reply.json == {"accepted": IN_A_REQUEST, "invalid": 0}:
                    with answered.open("ab") as file:
                        file.write(b".")
        await listening.close()

    answered.touch()
    return Requests(handle), client


def http_with_key(directory: Path, handle: Handle) -> Made:
    return http(directory, handle, with_key=True)


def syslog(directory: Path, handle: Handle) -> Made:
    client, source = SyslogClient(handle.front), SyslogMessages(handle, BLOCK_BYTES)

    async def send(pipeline: Pipeline) -> None:
        await send_once(directory, pipeline, source, client.send)
        await client.close()

    return source, send


KINDS: dict[str, Maker] = {
    "file": file,
    "stdin": stdin,
    "push": push,
    "push_with_key": push_with_key,
    "http": http,
    "http_with_key": http_with_key,
    "syslog": syslog,
}
FORMATS: dict[str, Maker] = {
    "file, cri": partial(container, format_="cri"),
    "file, docker": partial(container, format_="docker"),
    "file, long lines": long_lines,
}


async def live(kind: str, directory: Path) -> None:
    async with Spool(directory / "s.spool") as spool:
        with Front().open("s") as handle:
            source, feed = (KINDS | FORMATS)[kind](directory, handle)
            async with pipeline_on(spool, source, SMALL) as pipeline, running(pipeline):
                handle.start(pipeline.room_bytes, spool.key)
                await feed(pipeline)


def life(kind: str, directory: Path, dies_at: str = "") -> bool:
    """One life, in a process of its own; True if it was killed at that point."""
    child = os.fork()
    if not child:
        os.environ[DIES_AT] = dies_at
        try:
            asyncio.run(live(kind, directory))
            os._exit(0)
        except BaseException as error:  # noqa: BLE001 — whatever it is, this process must not return from here
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -9), f"{kind} ended with {code}"
    return code == -9


def joined(stored: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records, those that are parts of a line joined to it; without a line of which one is missing or comes twice."""
    found, begun = [], list[dict[str, Any]]()
    for record in stored:
        begun.append(record)
        if record.get("part", 1) == record.get("parts", 1):
            numbers = [(each.get("part"), each.get("parts"), each.get("line_id")) for each in begun]
            expected = [(number, len(begun), record.get("line_id")) for number in range(1, len(begun) + 1)]
            if "part" not in record:
                found.append(record)
            elif numbers == expected:
                found.append(json.loads("".join(each["message"] for each in begun)))
            begun = []
    return found


def pipe_to_stdin(directory: Path) -> None:
    """A pipe as standard input of each life, which opens its other end by name; what is not read yet stays in it."""
    os.mkfifo(directory / INPUT)
    reader = os.open(directory / INPUT, os.O_RDONLY | os.O_NONBLOCK)  # without, this would wait for who writes
    os.set_blocking(reader, True)
    os.dup2(reader, 0)
    os.close(reader)


def main(kind: str, site: Path) -> None:
    logs.configure(level="error")
    logfwd.spool.room.RESERVE_BYTES = 4096
    died = True
    for number in count(1):
        for moment in ("before", "after"):
            point = f"{moment} {number}"
            directory = site / point.replace(" ", "-")
            directory.mkdir()
            pipe_to_stdin(directory)
            died = life(kind, directory, point)
            answered = directory / "answered"
            requests = answered.stat().st_size if answered.exists() else 0
            if died:
                assert not life(kind, directory)
            stored = joined([json.loads(record) for record in asyncio.run(records_in(directory / "s.spool"))])
            numbers = [record["number"] for record in stored if "number" in record]
            found = {"numbers": numbers, "halves": len(stored) - len(numbers)}
            print(json.dumps({"point": point, "died": died, "answered": requests, **found}), flush=True)
            if not died:
                return


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
