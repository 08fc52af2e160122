"""How programs take signals, and how they end: each as a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

BEFORE = """
import asyncio, os, signal, sys, threading, time
from streams import program, signals
from streams.telemetry import logs
logs.configure()
def say(text): print(text, flush=True)
async def main(stop):
    stop.grace_seconds = lambda: 0.2
{body}
program.serve(main)
"""


@contextmanager
def program(body: str, before: str = "") -> Iterator[subprocess.Popen[str]]:
    """A process that runs this body as its main coroutine, and has said "ready"."""
    indented = "".join(f"    {line}\n" for line in body.strip().splitlines())
    argv = [sys.executable, "-c", before + BEFORE.format(body=indented)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_in_an_orderly_way(number: int) -> None:
    with program('say("ready")\nawait stop.requested.wait()\nsay("orderly")') as process:
        process.send_signal(number)
        code, out, err = end(process)
    assert (code, out) == (0, "orderly\n")
    assert '"stopping"' in err


HANGS = {
    "the loop": "while True: time.sleep(1)",
    "a thread of an executor": "await asyncio.to_thread(time.sleep, 1000)",
    "a task": "await asyncio.Event().wait()",
}


@pytest.mark.parametrize("hang", HANGS)
def test_a_stop_that_hangs_ends_after_its_grace(hang: str) -> None:
    body = f'say("ready")\n{"" if hang == "the loop" else "await stop.requested.wait()"}\n{HANGS[hang]}'
    with program(body) as process:
        process.terminate()
        code, _, err = end(process)
    assert code == 1
    assert '"stop took too long"' in err


def test_a_thread_that_hangs_does_not_hold_up_the_end_of_a_program() -> None:
    body = 'asyncio.ensure_future(asyncio.to_thread(time.sleep, 1000))\nawait asyncio.sleep(0)\nsay("ready")'
    with program(body) as process:
        assert end(process)[0] == 0


def test_a_second_signal_stops_at_once_but_not_one_that_came_twice() -> None:
    body = """
stop.grace_seconds = lambda: 1000.0
say("ready")
await stop.requested.wait()
say("stopping")
await asyncio.Event().wait()
"""
    with program(body) as process:
        for _ in range(2):  # as a terminal and a parent do
            process.terminate()
        assert process.stdout is not None
        assert process.stdout.readline() == "stopping\n"
        while process.poll() is None:
            process.terminate()
            try:
                process.wait(0.2)
            except subprocess.TimeoutExpired:
                continue
        code, _, err = end(process)
    assert code == 1
    assert '"stopping at once"' in err


def test_a_request_to_reload_that_comes_early_or_while_one_is_under_way_is_not_forgotten() -> None:
    body = """
finish, reloads = asyncio.Event(), []
async def reload():
    reloads.append(len(reloads))
    say(f"reload {len(reloads)}")
    await finish.wait()
    finish.clear()
say("ready")
await asyncio.to_thread(sys.stdin.readline)
stop.on_reload = reload
while True:
    await asyncio.to_thread(sys.stdin.readline)
    finish.set()
"""
    argv_in = subprocess.PIPE
    indented = "".join(f"    {line}\n" for line in body.strip().splitlines())
    argv = [sys.executable, "-c", BEFORE.format(body=indented)]
    with subprocess.Popen(argv, stdin=argv_in, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGHUP)
            process.stdin.write("go\n")
            assert process.stdout.readline() == "reload 1\n"
            for _ in range(3):
                process.send_signal(signal.SIGHUP)
            process.send_signal(signal.SIGHUP)
            assert _is_blocked_and_taken(process.pid)
            process.stdin.write("go\n")
            assert process.stdout.readline() == "reload 2\n"
        finally:
            process.kill()


def _is_blocked_and_taken(pid: int) -> bool:
    """No SIGHUP is pending: the thread of signals has taken it."""
    while True:
        with open(f"/proc/{pid}/status") as status:
            pending = [line for line in status if line.startswith("ShdPnd")]
        if not int(pending[0].split()[1], 16) & 1 << signal.SIGHUP - 1:
            return True
        os.sched_yield()


def test_a_reload_that_fails_unexpectedly_is_said_and_the_next_one_is_tried() -> None:
    body = """
async def reload():
    say("reload")
    raise ValueError("no")
stop.on_reload = reload
say("ready")
await stop.requested.wait()
"""
    with program(body) as process:
        assert process.stdout is not None
        for _ in range(2):
            process.send_signal(signal.SIGHUP)
            assert process.stdout.readline() == "reload\n"
        process.terminate()
        code, _, err = end(process)
    assert code == 0
    assert '"reload failed"' in err


def test_a_thread_that_dies_ends_the_program_loudly() -> None:
    body = """
say("ready")
threading.Thread(target=lambda: 1 / 0, name="important").start()
await stop.requested.wait()
"""
    with program(body) as process:
        code, _, err = end(process)
    assert code == 70
    assert '"thread failed"' in err
    assert '"important"' in err
    assert "ZeroDivisionError" in err


def test_an_error_that_nobody_expected_ends_the_program_with_its_traceback() -> None:
    with program('say("ready")\n1 / 0') as process:
        code, _, err = end(process)
    assert code == 70
    assert '"program failed"' in err
    assert "ZeroDivisionError" in err


@pytest.mark.parametrize("name", ["logfwd", "logreceiver"])
def test_a_request_to_reload_never_ends_a_program_from_its_first_statement_on(name: str) -> None:
    script = f"""
import sys
sys.argv = ["{name}", "run", "-c", "missing.toml"]
from {name}.main import main
import signal, os
from streams import startup
prepare = startup.prepare
def prepared():
    prepare()
    os.kill(os.getpid(), signal.SIGHUP)
startup.prepare = prepared
main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 78, done.stderr
    assert "missing.toml" in done.stderr


@pytest.mark.parametrize(("command", "collects"), [("run", False), ("validate", True)])
def test_a_program_that_is_to_run_collects_no_garbage_until_it_does(command: str, collects: bool) -> None:
    script = f"""
import gc, sys
from streams import startup
sys.argv[1:] = [{command!r}]
startup.prepare()
print(gc.isenabled())
from streams import program
program.has_started()
print(gc.isenabled(), gc.get_freeze_count() > 10_000)
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, timeout=60, text=True)
    assert found.stdout.split() == [str(collects), "True", "True"]


@pytest.mark.parametrize("generation", [1, 2])
def test_what_survives_a_collection_is_left_out_of_the_next_until_all_are_visited(generation: int) -> None:
    script = f"""
import gc, weakref
from streams import program
class Kept: pass
clock = [1000.0]
program.time = type("Time", (), {{"monotonic": staticmethod(lambda: clock[0])}})
program.has_started()
pair, alone = Kept(), Kept()
pair.itself, held, freed = pair, weakref.ref(pair), weakref.ref(alone)
gc.collect({generation})
del pair, alone
gc.collect()
print(freed() is None, held() is None)
clock[0] += 600
gc.collect()
print(held() is None)
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, timeout=60, text=True)
    assert found.stdout.split() == ["True", "False", "True"]
