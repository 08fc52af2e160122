"""Acts of an operator on a running program, over a Unix socket that its own user alone may open; and asking for one.

A line of JSON each way: {"act": "reload", "check": true}, and what the act answers. A flow answers with line after
line, until the client hangs up. The admin port, which any local user can reach, stays read-only and shows no records.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import stat
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from streams.errors import PipelineError
from streams.telemetry import logs
from streams.telemetry.client import NotAnswered

MAX_ADDRESS_BYTES = 107
"""unix(7)"""
MAX_LINE_BYTES = 64 * 1024
ASK_SECONDS = 5.0
"""How long a client has for its question."""
ANSWER_SECONDS = 60.0
QUIET = ("status", "links")
"""Acts that change nothing, and that scripts ask for every few seconds: not logged."""
END_SECONDS = 2.0
"""How long a program that stops waits for acts under way."""

Act = Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]]
Flow = Callable[[Mapping[str, Any]], AsyncGenerator[bytes, None]]
"""Answers with lines, each with its end; raises ValueError for a question that it does not understand."""
NO_FLOWS: Mapping[str, Flow] = {}

log = logs.get_logger("control")


class ControlUnavailable(PipelineError):
    """The control socket cannot be made."""


@contextlib.asynccontextmanager
async def serving(path: Path, acts: Mapping[str, Act], flows: Mapping[str, Flow] = NO_FLOWS) -> AsyncIterator[None]:
    """Serve until the block is left; raises ControlUnavailable. A socket that a killed process left is replaced.

    At the end, acts under way have END_SECONDS for their answers, and flows end at once.
    """
    sock = listening(path)
    ending = asyncio.Event()
    under_way: set[asyncio.Task[None]] = set()

    def connected(*ends: Any) -> None:
        task = asyncio.create_task(_serve(acts, flows, ending, *ends))
        under_way.add(task)
        task.add_done_callback(under_way.discard)

    server = await asyncio.start_unix_server(connected, sock=sock, limit=MAX_LINE_BYTES)
    try:
        yield
    finally:
        ending.set()
        server.close()
        path.unlink(missing_ok=True)  # noqa: ASYNC240 — a moment, at the end
        if under_way:
            _, late = await asyncio.wait(under_way, timeout=END_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)


def listening(path: Path) -> socket.socket:
    """For a program without an event loop: what `answer_one` serves. Raises ControlUnavailable."""
    try:
        sock = _bound(path)
    except OSError as error:
        raise ControlUnavailable(f"control_socket {path}: {error.strerror or error}") from error
    sock.listen()
    return sock


def answer_one(sock: socket.socket, acts: Mapping[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]]) -> None:
    """Take the next connection, which is there already, and answer its question."""
    try:
        with sock.accept()[0] as connection:
            connection.settimeout(ASK_SECONDS)
            with connection.makefile("rb") as lines:
                line = lines.readline(MAX_LINE_BYTES)
            if line:
                name, question = _asked(acts, line, connection)
                connection.sendall(json.dumps(acts[name](question)).encode() + b"\n")
    except (OSError, ValueError) as error:
        log.warning("act not understood", reason=str(error) or type(error).__name__)
    except Exception as error:  # the top of what an operator asks for
        log.exception("act failed", reason=f"{type(error).__name__}: {error}")


def reloading(reload: Callable[..., Awaitable[object]]) -> Act:
    """The act "reload", which answers with the fields of a report."""

    async def answer(asked: Mapping[str, Any]) -> Mapping[str, Any]:
        report = await reload(check=bool(asked.get("check")), confirm=str(asked.get("confirm", "")))
        fields: dict[str, Any] = msgspec.to_builtins(report)
        return fields

    return answer


def in_directory(directory: Path) -> Path:
    """Where a program serves that has a directory of its own."""
    return directory / "control.sock"


@contextlib.contextmanager
def _address(path: Path) -> Iterator[str]:
    """The path, or if that is too long for a socket's address, a shorter name of it."""
    if len(os.fsencode(path)) <= MAX_ADDRESS_BYTES:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def _bound(path: Path) -> socket.socket:
    """Nobody can connect before it listens, and by then its mode is set."""
    if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
        with socket.socket(socket.AF_UNIX) as other, _address(path) as address:
            if other.connect_ex(address) == 0:
                raise OSError("another program answers there; give each its own path")
        path.unlink()
    sock = socket.socket(socket.AF_UNIX)
    try:
        with _address(path) as address:
            sock.bind(address)
        os.chmod(path, 0o600)
    except BaseException:
        sock.close()
        raise
    return sock


async def _serve(
    acts: Mapping[str, Act],
    flows: Mapping[str, Flow],
    ending: asyncio.Event,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    try:
        async with asyncio.timeout(ASK_SECONDS):
            line = await reader.readline()
        if line:
            name, question = _asked({**acts, **flows}, line, writer.get_extra_info("socket"))
            if name in flows:
                await _flow(flows[name](question), ending, reader, writer)
                return
            writer.write(json.dumps(await acts[name](question)).encode() + b"\n")
            await writer.drain()
    except (OSError, ValueError, TimeoutError) as error:
        log.warning("act not understood", reason=str(error) or type(error).__name__)
    except Exception as error:  # the top of a task
        log.exception("act failed", reason=f"{type(error).__name__}: {error}")
    finally:
        writer.close()


async def _flow(
    lines: AsyncGenerator[bytes, None],
    ending: asyncio.Event,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    """Write lines until there are no more, the client hangs up, or the program stops."""

    async def write() -> None:
        async with contextlib.aclosing(lines):
            async for line in lines:
                writer.write(line)
                await writer.drain()

    writing = asyncio.create_task(write())
    others = [asyncio.create_task(reader.read(1)), asyncio.create_task(ending.wait())]
    try:
        await asyncio.wait([writing, *others], return_when=asyncio.FIRST_COMPLETED)
        if writing.done():
            writing.result()
        else:
            writer.transport.abort()  # a client that reads nothing would keep what waits for it
    finally:
        for task in (writing, *others):
            task.cancel()
        await asyncio.gather(writing, *others, return_exceptions=True)


def _asked(acts: Mapping[str, object], line: bytes, sock: socket.socket) -> tuple[str, dict[str, Any]]:
    """The act that is asked for, and its arguments; logged with who asks. ValueError for what is no question."""
    question = json.loads(line)
    name = question.pop("act", None) if isinstance(question, dict) else None
    if not isinstance(name, str) or name not in acts:
        raise ValueError(f"the acts are: {', '.join(acts)}")
    process, user, _ = struct.unpack(
        "3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    )
    if name not in QUIET:
        log.info("act requested", act=name, pid=process, uid=user)
    return name, question


def is_served(path: Path) -> bool:
    """Whether a program serves this socket; raises NotAnswered if that cannot be known, such as another user's."""
    try:
        with socket.socket(socket.AF_UNIX) as sock, _address(path) as address:
            sock.settimeout(ASK_SECONDS)
            sock.connect(address)
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    except OSError as error:
        raise NotAnswered(f"{path} does not answer: {error.strerror or error}; ask as the program's user") from error
    return True


def follow(path: Path, act: str, **arguments: str | float) -> Generator[bytes, None, None]:
    """The lines that a flow of the program that serves this socket answers with; raises NotAnswered."""
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.settimeout(ASK_SECONDS)
            with _address(path) as address:
                sock.connect(address)
            sock.settimeout(None)
            sock.sendall(json.dumps({"act": act, **arguments}).encode() + b"\n")
            with sock.makefile("rb") as lines:
                yield from lines
        except OSError as error:
            raise _silent(path, error) from error


def ask(path: Path, act: str, *, seconds: float = ANSWER_SECONDS, **arguments: str | bool) -> dict[str, Any]:
    """What the program that serves this socket answers within this time; raises NotAnswered."""
    try:
        with socket.socket(socket.AF_UNIX) as sock, contextlib.ExitStack() as stack:
            sock.settimeout(seconds)
            sock.connect(stack.enter_context(_address(path)))
            sock.sendall(json.dumps({"act": act, **arguments}).encode() + b"\n")
            answer = stack.enter_context(sock.makefile("rb")).readline()
    except OSError as error:
        raise _silent(path, error) from error
    if not answer:
        raise NotAnswered(f"{path} gave no answer; its program's log says why")
    answered: dict[str, Any] = json.loads(answer)
    return answered


def _silent(path: Path, error: OSError) -> NotAnswered:
    why = error.strerror or error
    return NotAnswered(f"{path} does not answer: {why}; is the program running, as this user?")
