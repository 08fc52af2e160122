"""The control socket: who may open it, and what becomes of questions."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import threading
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from streams import control
from streams.control import ControlUnavailable, answer_one, ask, listening, serving
from streams.telemetry.client import NotAnswered
from tests.support.installation import found


async def say(asked: Mapping[str, Any]) -> Mapping[str, Any]:
    if asked.get("fail"):
        raise RuntimeError("no")
    return {"said": asked["word"]}


async def test_an_act_is_answered_and_it_is_logged_who_asked(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with capture_logs() as events:
        async with serving(path, {"say": say}):
            assert await asyncio.to_thread(ask, path, "say", word="yes") == {"said": "yes"}
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (asked,) = found(events, "act requested")
    assert (asked["act"], asked["pid"], asked["uid"]) == ("say", os.getpid(), os.getuid())
    assert not path.exists()


@pytest.mark.parametrize("question", [b"\n", b"[]\n", b'{"act":"else"}\n', b'{"act":[]}\n', b"x" * 200_000 + b"\n"])
async def test_nonsense_gets_no_answer_and_the_next_question_does(tmp_path: Path, question: bytes) -> None:
    path = tmp_path / "control.sock"
    with capture_logs() as events:
        async with serving(path, {"say": say}):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(question)
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()
            assert await asyncio.to_thread(ask, path, "say", word="yes") == {"said": "yes"}
    assert len(found(events, "act not understood")) == 1


async def test_an_act_that_fails_is_said_at_both_ends(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with capture_logs() as events:
        async with serving(path, {"say": say}):
            with pytest.raises(NotAnswered, match="gave no answer"):
                await asyncio.to_thread(ask, path, "say", fail=True)
    assert found(events, "act failed")[0]["reason"] == "RuntimeError: no"


async def test_an_act_under_way_is_answered_before_the_end(tmp_path: Path) -> None:
    path, begun = tmp_path / "control.sock", asyncio.Event()

    async def slowly(_: Mapping[str, Any]) -> Mapping[str, Any]:
        begun.set()
        await asyncio.sleep(0.05)
        return {"done": True}

    async with serving(path, {"slowly": slowly}):
        asked = asyncio.create_task(asyncio.to_thread(ask, path, "slowly"))
        await begun.wait()
    assert await asked == {"done": True}


async def test_an_act_that_does_not_end_does_not_hold_up_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "END_SECONDS", 0.05)
    path, begun, ended = tmp_path / "control.sock", asyncio.Event(), asyncio.Event()

    async def hang(_: Mapping[str, Any]) -> Mapping[str, Any]:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return {}

    async with serving(path, {"hang": hang}):
        asked = asyncio.create_task(asyncio.to_thread(ask, path, "hang"))
        await begun.wait()
    assert ended.is_set()
    with pytest.raises(NotAnswered):
        await asked


async def test_who_asks_nothing_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "ASK_SECONDS", 0.05)
    async with serving(tmp_path / "control.sock", {}):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "control.sock")
        assert await reader.read() == b""
        writer.close()


async def test_a_socket_that_was_left_is_replaced_and_one_in_use_is_not(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    async with serving(path, {"say": say}):
        with pytest.raises(ControlUnavailable, match="another program answers there"):
            async with serving(path, {}):
                pass
        assert await asyncio.to_thread(ask, path, "say", word="still") == {"said": "still"}


async def test_a_path_that_cannot_be_a_socket_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "none" / "control.sock", tmp_path / ("x" * 200)):
        with pytest.raises(ControlUnavailable, match=f"control_socket {path}: "):
            async with serving(path, {}):
                pass
    assert (tmp_path / "file").read_bytes() == b""


def test_a_program_that_does_not_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotAnswered, match="does not answer: No such file or directory; is the program running"):
        ask(tmp_path / "control.sock", "say")


@pytest.mark.parametrize("question", [b"[]\n", b'{"act":"else"}\n', b"x" * 200_000 + b"\n", b""])
def test_without_an_event_loop_an_act_is_answered_and_nonsense_is_not(tmp_path: Path, question: bytes) -> None:
    path = tmp_path / "control.sock"
    with listening(path) as sock, capture_logs() as events:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            sender = threading.Thread(target=_say, args=(client, question))
            sender.start()
            answer_one(sock, {"say": lambda asked: {"said": asked["word"]}})
            sender.join()
        answered = threading.Thread(target=answer_one, args=(sock, {"say": lambda asked: {"said": asked["word"]}}))
        answered.start()
        assert ask(path, "say", word="yes") == {"said": "yes"}
        answered.join()
    assert len(found(events, "act not understood")) == (1 if question else 0)
    assert [event["uid"] for event in found(events, "act requested")] == [os.getuid()]


def _say(client: socket.socket, words: bytes) -> None:
    with contextlib.suppress(OSError):
        client.sendall(words)
        client.shutdown(socket.SHUT_WR)


async def count(asked: Mapping[str, Any]) -> AsyncGenerator[bytes, None]:
    for number in range(asked.get("most", 1_000_000)):
        yield b"%d\n" % number


def follow_all(path: Path, most: int) -> list[bytes]:
    return list(control.follow(path, "count", most=most))


async def test_a_flow_answers_line_after_line(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with capture_logs() as events:
        async with serving(path, {}, {"count": count}):
            lines = await asyncio.to_thread(follow_all, path, 1000)
    assert lines == [b"%d\n" % number for number in range(1000)]
    assert found(events, "act requested")[0]["act"] == "count"


@pytest.mark.parametrize("reads", [True, False])
async def test_a_flow_ends_when_its_client_hangs_up_also_if_it_reads_nothing(tmp_path: Path, reads: bool) -> None:
    path, ended = tmp_path / "control.sock", asyncio.Event()

    async def endless(_: Mapping[str, Any]) -> AsyncGenerator[bytes, None]:
        try:
            yield b"first\n"
            while not reads:
                yield b"x" * 10_000
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with serving(path, {}, {"endless": endless}):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b'{"act":"endless"}\n')
        assert await reader.readline() == b"first\n"
        assert not ended.is_set()
        writer.close()
        await asyncio.wait_for(ended.wait(), 5)


async def test_a_flow_does_not_hold_up_the_end_of_its_program(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    async with serving(path, {}, {"count": count}):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b'{"act":"count"}\n')
        assert await reader.readline() == b"0\n"
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began < control.END_SECONDS / 2
    writer.close()
