"""The commands in README and docs are run as they stand there, but for ports, and must end with 0.

A command in a block that no test runs has to be named here, with the test that runs the like.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.lab.kafka import free_ports
from bench.lab.processes import wait_until
from bench.lab.site import command
from tests.support.patience import PATIENCE_SECONDS

ROOT = Path(__file__).parents[2]
PROGRAMS = ("logfwd", "logreceiver", "logbench", "curl", "make", "echo", "sleep")
WITH_ITS_OWN_TEST = {
    r"make ": "tests/bench/test_demo.py; `make test` is this run",
    r"\.venv/bin/logbench (compare|watch)": "tests/bench/compare, tests/bench/test_watch.py; they take minutes",
    r"logbench (throughput|latency|sustained|cost)": "tests/bench/speed; they take minutes",
    r"curl .*8088/ingest|.*\| curl .*8088/ingest|curl --unix-socket": "tests/integration/test_inputs_docs.py",
    r"curl --cacert": "tests/integration/test_http_tls.py",
}
READY = "sleep 3"
ISSUED = ("pq-auth.md", "kemtls.md")
"""Pages whose commands only make files."""


def blocks(text: str) -> list[list[str]]:
    """The commands of each block of a document, in order: without comments, and without what they print."""
    fenced = re.findall(r"^ *```\w*\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    indented = [
        "".join(f"{line}\n" for line in re.findall(r"^ {4}(\$ .*|\.venv/bin/.*|make .*|logbench .*)$", text, re.M))
    ]
    return [found for block in (*fenced, *indented) if (found := _commands(block))]


def _commands(block: str) -> list[str]:
    joined = re.sub(r" *\\\n\s*", " ", block)
    lines = [re.sub(r"\s{2,}#.*", "", line.strip().removeprefix("$ ")) for line in joined.splitlines()]
    return [line for line in lines if re.match(rf"(\.venv/bin/|[^|]+\| )?({'|'.join(PROGRAMS)}) ", line)]


class World:
    """A directory in which commands are run one after the other; those that end with & run until the end."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        link, receiver, self.forwarder = (f"localhost:{port}" for port in free_ports(3))
        self.directory = directory
        self._running: list[subprocess.Popen[bytes]] = []
        self._here = {
            r"^logreceiver init\b": f"logreceiver init --listen {link} --admin {receiver}",
            r"^logfwd init\b": f"logfwd init --receiver {link} --admin {self.forwarder}",
            r"127\.0\.0\.1:9464": self.forwarder,
        }
        self._environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def run(self, line: str) -> str:
        """What a command prints; AssertionError if it fails."""
        if line == READY:
            assert wait_until(self._is_ready, PATIENCE_SECONDS, every_seconds=0.2)
            return ""
        for pattern, text in self._here.items():
            line = re.sub(pattern, text, line)
        if line.endswith(" &"):
            words = line.removesuffix(" &").split()
            with (self.directory / f"{words[0]}.log").open("wb") as log:
                argv = [command(words[0]), *words[1:]]
                self._running.append(subprocess.Popen(argv, cwd=self.directory, env=self._environment, stderr=log))
            return ""
        done = self._run(line)
        assert done.returncode == 0, f"{line}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def _run(self, line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-o", "pipefail", "-c", line],
            cwd=self.directory,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_SECONDS,
        )

    def _is_ready(self) -> bool:
        return bool(self._run("logfwd status && logreceiver cat app").stdout.endswith("}\n"))

    def stop(self) -> None:
        for process in reversed(self._running):
            process.terminate()
            process.wait(PATIENCE_SECONDS)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "world")
    with contextlib.closing(contextlib.ExitStack()) as stack:
        stack.callback(made.stop)
        yield made


README = (ROOT / "README.md").read_text()
FIRST, CERTIFICATES, OWN = ("logreceiver init", "logfwd pki issue", "logfwd streams add")
"""What the blocks of README are known by."""


def block_with(words: str) -> list[str]:
    (found,) = [block for block in blocks(README) if any(line.startswith(words) for line in block)]
    return found


def test_a_first_pipeline_and_an_own_stream_by_the_commands_of_readme(world: World) -> None:
    said = {line: world.run(line) for line in block_with(FIRST)}
    assert '"message":"a first line"' in said["logreceiver cat app"]
    assert "connected" in said["logfwd status"]
    add, *others = block_with(OWN)
    (world.directory / "own").mkdir()
    (world.directory / "own" / "x.json").write_text('{"n":1}\n')
    assert "added own" in world.run(add)
    assert wait_until(lambda: '{"n":1}' in world._run("logreceiver cat own").stdout, PATIENCE_SECONDS)
    for line in others:
        world.run(line)
    assert "own (not configured)" in world.run("logfwd spool ls")
    for line in commands_of_the_running_pair():
        world.run(line.replace(" http ", " app "))


def commands_of_the_running_pair() -> list[str]:
    """Those of the pages that ask running programs."""
    pages = [(ROOT / "docs" / name).read_text() for name in ("api.md", "ledger.md", "posture.md", "rights.md")]
    found = [line for page in pages for block in blocks(page) for line in block]
    assert len(found) >= 4
    return found


def test_the_certificates_and_configurations_of_readme_are_valid(world: World) -> None:
    for line in block_with(CERTIFICATES):
        world.run(line)
    tables = re.findall(r"^```toml\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    (world.directory / "streams.d").mkdir()
    for text in tables:
        named = re.match(r"# ([\w./-]+\.toml)", text)
        (world.directory / (named[1] if named else "logreceiver.toml")).write_text(text)
    names = {path.name for path in world.directory.rglob("*.toml")}
    assert names == {"logreceiver.toml", "logfwd.toml", "http.toml", "pq-stream.toml"}
    world.run("logreceiver validate")
    world.run("logfwd validate")
    world.run("logfwd pki renew pki pki/host-1.pem")


@pytest.mark.parametrize("page", ISSUED)
def test_the_certificates_of_a_page_are_made_by_its_commands(page: str, world: World) -> None:
    found = [line for block in blocks((ROOT / "docs" / page).read_text()) for line in block]
    assert len(found) >= 4
    world.run("logfwd pki init pki")
    for line in found:
        world.run(line)


def test_every_command_in_a_block_is_run_by_a_test() -> None:
    run = {line for words in (FIRST, CERTIFICATES, OWN) for line in block_with(words)}
    run |= set(commands_of_the_running_pair())
    for page in ISSUED:
        run |= {line for block in blocks((ROOT / "docs" / page).read_text()) for line in block}
    shown = {
        (path.name, line)
        for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))
        for block in blocks(path.read_text())
        for line in block
    }
    others = {(name, line) for name, line in shown if line not in run}
    assert len(others) >= 10
    left = [each for each in others if not any(re.match(pattern, each[1]) for pattern in WITH_ITS_OWN_TEST)]
    assert left == []


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("logfwd pki issue", "logfwd pki isue"), ("--identity", "--identty"), ("pki show pki", "pki show pik")],
)
def test_a_wrong_command_fails_the_test_that_runs_it(right: str, wrong: str, world: World) -> None:
    lines = block_with(CERTIFICATES)
    assert any(right in line for line in lines)
    with pytest.raises(AssertionError, match=r": [12]\n"):
        for line in lines:
            world.run(line.replace(right, wrong))
