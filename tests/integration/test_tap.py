"""`logfwd tap`: records of a running forwarder as they pass, and what that does to their delivery: nothing."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.lab.processes import wait_until
from bench.lab.site import Site, command

PATIENCE_SECONDS = 60.0
SOURCE = '[source]\ntype = "file"\npaths = ["{}.log"]\nscan = "100ms"\n{}'
LOAD = 300_000


def tap(site: Site, *words: str, stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
    """Opened, and looking on: the forwarder has said so."""
    argv = [command("logfwd"), "tap", *words, "-c", str(site.directory / "logfwd.toml")]
    known = len(requests(site))
    started = subprocess.Popen(argv, stdout=stdout, stderr=subprocess.PIPE, text=True)
    assert wait_until(lambda: len(requests(site)) > known or started.poll() is not None, PATIENCE_SECONDS)
    return started


def requests(site: Site) -> list[object]:
    return [event for event in site.forwarder.events() if event["event"] == "act requested"]


def append(site: Site, stream: str, first: int, count: int) -> None:
    with (site.directory / f"{stream}.log").open("a") as out:
        out.writelines(f'{{"n":{number}}}\n' for number in range(first, first + count))


def stored(site: Site, topic: str) -> list[int]:
    argv = [command("logreceiver"), "cat", topic, "-c", str(site.directory / "logreceiver.toml")]
    done = subprocess.run(argv, capture_output=True, check=True, timeout=PATIENCE_SECONDS)
    return [json.loads(line)["n"] for line in done.stdout.splitlines()]


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Children can be interrupted, also where a shell has begun this process in the background and ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A running pair with the streams `http`, its twin `copy`, and `text`."""
    with Site(tmp_path / "site") as made:
        made.make_pki()
        made.write_receiver('type = "log"\ndirectory = "log"', listeners={"localhost:0": '["hybrid", "classical"]'})
        made.write_stream("http", SOURCE.format("http", ""))
        made.write_stream("copy", 'mirror_of = "http"\nsecurity = "classical"\n')
        made.write_stream("text", SOURCE.format("text", 'format = "raw"\n'))
        made.write_forwarder(made.start_receiver())
        made.start_forwarder()
        yield made


def test_records_are_shown_as_they_pass_and_an_end_is_said(site: Site) -> None:
    append(site, "http", 0, 10)
    assert site.wait_until_acknowledged(10, ["http"], PATIENCE_SECONDS)
    looking, twin = tap(site, "http", "--count", "3"), tap(site, "copy", "--count", "3", "--json")
    append(site, "http", 10, 3)
    out, said = looking.communicate(timeout=PATIENCE_SECONDS)
    assert out == '{"n":10}\n{"n":11}\n{"n":12}\n', "not those that had passed before"
    assert (looking.returncode, said) == (0, "3 records shown\n")
    lines = [json.loads(line) for line in twin.communicate(timeout=PATIENCE_SECONDS)[0].splitlines()]
    assert [(line["stream"], line["record"]["n"]) for line in lines] == [("copy", 10), ("copy", 11), ("copy", 12)]
    assert lines[0]["time"].startswith("20")

    waiting = tap(site, "http")
    waiting.send_signal(signal.SIGINT)
    assert waiting.communicate(timeout=PATIENCE_SECONDS)[1] == "\n0 records shown\n"
    assert waiting.returncode == 0
    waiting = tap(site, "http")
    for name in ("copy", "http"):
        file = site.streams_dir / f"{name}.toml"
        file.write_text("removed = true\n" + file.read_text())
    subprocess.run([command("logfwd"), "reload", "-c", str(site.directory / "logfwd.toml")], check=True, timeout=60)
    assert waiting.communicate(timeout=PATIENCE_SECONDS)[1] == "Error: the stream was removed\n"
    assert waiting.returncode == 1
    unknown = tap(site, "htp")
    assert "there is no stream 'htp'; existing streams: text" in unknown.communicate(timeout=PATIENCE_SECONDS)[1]
    assert unknown.returncode == 1
    waiting = tap(site, "text")
    site.forwarder.stop()
    assert "the forwarder ended" in waiting.communicate(timeout=PATIENCE_SECONDS)[1]
    assert waiting.returncode == 69
    nobody = tap(site, "text")
    assert "is the program running, as this user?" in nobody.communicate(timeout=PATIENCE_SECONDS)[1]
    assert nobody.returncode == 69


def test_a_terminal_is_not_obeyed_by_records(site: Site) -> None:
    ours, terminal = pty.openpty()
    looking = tap(site, "text", "--count", "2", stdout=terminal)
    os.close(terminal)
    (site.directory / "text.log").write_text('{"m":"\x9b2Jgone\u202e"}\nplain \x1b]0;title\x07\n')
    looking.communicate(timeout=PATIENCE_SECONDS)
    assert looking.returncode == 0
    shown = os.read(ours, 10_000)
    os.close(ours)
    assert b'{"m":"\\u009b2Jgone\\u202e"}' in shown
    assert b"record_base64" in shown
    assert shown.decode().replace("\r\n", "").isprintable()


def test_a_pipe_that_closes_ends_it_quietly(site: Site) -> None:
    looking = tap(site, "http")
    assert looking.stdout is not None
    looking.stdout.close()
    looking.stdout = None
    append(site, "http", 0, 10)
    assert looking.communicate(timeout=PATIENCE_SECONDS)[1] == ""
    assert looking.returncode == 0


def test_taps_that_look_that_are_stopped_or_killed_leave_delivery_alone(site: Site) -> None:
    looking = [tap(site, "http", "--rate", "1000") for _ in range(3)]
    stopped, killed, open_tap = looking
    stopped.send_signal(signal.SIGSTOP)
    try:
        append(site, "http", 0, LOAD // 2)
        assert site.wait_until_acknowledged(LOAD // 2, ["http", "copy"], PATIENCE_SECONDS)
        killed.kill()
        append(site, "http", LOAD // 2, LOAD // 2)
        assert site.wait_until_acknowledged(LOAD, ["http", "copy"], PATIENCE_SECONDS)
        assert stored(site, "http") == list(range(LOAD))
        assert stored(site, "copy") == list(range(LOAD))
        assert site.forwarder.stop(5) == 0, "nor does a stopped one hold up the end"
    finally:
        stopped.send_signal(signal.SIGCONT)
    out, said = open_tap.communicate(timeout=PATIENCE_SECONDS)
    assert "the forwarder ended" in said
    assert 0 < len(out.splitlines()) < LOAD
    (killed_end, *_) = [event for event in site.forwarder.events() if event["event"] == "tap ended"]
    assert killed_end["shown"] + killed_end["unseen"] >= LOAD // 2
    stopped.communicate(timeout=PATIENCE_SECONDS)
    killed.communicate(timeout=PATIENCE_SECONDS)
