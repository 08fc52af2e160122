"""`logfwd init`, `logreceiver init`: what they write runs as it is; what they cannot finish leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.lab.kafka import free_ports
from bench.lab.processes import wait_until
from bench.lab.site import command

PATIENCE_SECONDS = 60.0


def ask(directory: Path, program: str, *words: str) -> tuple[int, str]:
    done = subprocess.run(
        [command(program), *words],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
        stdin=subprocess.DEVNULL,
    )
    return done.returncode, done.stdout + done.stderr


@contextlib.contextmanager
def running(directory: Path, program: str) -> Iterator[None]:
    process = subprocess.Popen([command(program), "run"], cwd=directory, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A directory with an authority and a file to read."""
    assert ask(tmp_path, "logfwd", "pki", "init", "pki")[0] == 0
    (tmp_path / "app.log").write_text("first\nsecond\n")
    return tmp_path


def files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def test_what_both_write_is_valid_and_carries_records(host: Path) -> None:
    link, admin, other_admin = (f"localhost:{port}" for port in free_ports(3))
    code, text = ask(host, "logreceiver", "init", "--listen", link, "--admin", admin)
    assert code == 0, text
    words = ("--file", "app.log", "--format", "text", "--receiver", link, "--admin", other_admin)
    code, text = ask(host, "logfwd", "init", *words)
    assert code == 0, text
    assert f"next: cd {host} && logfwd run" in text
    assert stat.S_IMODE((host / "logfwd.toml").stat().st_mode) & 0o007 == 0
    for program in ("logreceiver", "logfwd"):
        code, text = ask(host, program, "validate")
        assert code == 0, text

    def stored() -> list[str]:
        code, text = ask(host, "logreceiver", "cat", "app")
        return text.splitlines() if code == 0 else []

    with running(host, "logreceiver"), running(host, "logfwd"):
        assert wait_until(lambda: len(stored()) == 2, PATIENCE_SECONDS)
        assert [f'"message":"{word}"' in line for word, line in zip(("first", "second"), stored(), strict=True)]
        assert f'"host":"{os.uname().nodename}' in stored()[0]


def test_a_receiver_for_kafka_and_a_forwarder_with_a_certificate_of_its_own(host: Path) -> None:
    words = ("--kafka", "kafka-1:9092", "--kafka", "kafka-2:9092", "--mode", "hybrid", "--mode", "classical")
    code, text = ask(host, "logreceiver", "init", *words)
    assert code == 0, text
    assert 'brokers = ["kafka-1:9092", "kafka-2:9092"]' in (host / "logreceiver.toml").read_text()
    issued = ("pki", "issue", "pki", "--identity", "spiffe://example.net/host-1", "--out", "host-1")
    assert ask(host, "logfwd", *issued)[0] == 0
    code, text = ask(host, "logfwd", "init", "--file", "*.log", "--name", "host-1", "--stream", "web")
    assert code == 0, text
    assert "uses pki/host-1.pem" in text
    assert {"logfwd.toml", "streams.d/web.toml"} <= files(host)


@pytest.mark.parametrize("program", ["logfwd", "logreceiver"])
def test_without_a_certificate_nothing_is_left_and_the_remedy_is_said(tmp_path: Path, program: str) -> None:
    code, text = ask(tmp_path, program, "init", *(("--file", "a.log") if program == "logfwd" else ()))
    assert (code, files(tmp_path)) == (1, set())
    assert "logfwd pki init" in text


@pytest.mark.parametrize(
    ("program", "words", "expected"),
    [
        ("logfwd", ("--file", "a.log", "--mode", "hybird"), 78),
        ("logfwd", ("--file", "a.log", "--receiver", "nowhere"), 78),
        ("logfwd", ("--file", "a.log", "--stream", "../a"), 78),
        ("logfwd", (), 2),
        ("logreceiver", ("--listen", "nowhere"), 78),
        ("logreceiver", ("--mode", "hybird"), 78),
    ],
)
def test_what_would_not_be_valid_leaves_nothing_behind(
    host: Path, program: str, words: tuple[str, ...], expected: int
) -> None:
    before = files(host)
    code, text = ask(host, program, "init", *words)
    assert code == expected, text
    assert files(host) == before


def test_nothing_is_overwritten(host: Path) -> None:
    (host / "logreceiver.toml").write_text("mine")
    before = files(host)
    code, text = ask(host, "logreceiver", "init")
    assert (code, "exists" in text) == (1, True), text
    assert (files(host), (host / "logreceiver.toml").read_text()) == (before, "mine")
