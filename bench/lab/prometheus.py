"""A real Prometheus and its promtool without Docker: those on the PATH, or Debian's package in a cache directory.

Nothing is installed. A server runs with the project's own rules and scrapes the given addresses.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from bench.lab.debian import unpack
from bench.lab.processes import StartFailed
from bench.lab.site import Program

PACKAGE = "prometheus"
DEPLOYED = Path(__file__).parents[2] / "deploy" / "prometheus"
START_SECONDS = 30.0


class Tools(NamedTuple):
    """The two programs."""

    prometheus: str
    promtool: str


@cache
def tools() -> Tools:
    """Their paths; the first call fetches them. Raises StartFailed, with the remedy, if they are not available."""
    found = tuple(shutil.which(name) for name in Tools._fields)
    if all(found):
        return Tools(*map(str, found))
    cache_home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    root = cache_home / "logfwd" / PACKAGE
    if not root.exists():
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root.parent) as scratch:
            unpacked = unpack([PACKAGE], Path(scratch))
            try:
                unpacked.rename(root)  # atomic: another process may have been quicker
            except OSError:
                if not root.exists():
                    raise
    return Tools(*(str(root / "usr" / "bin" / name) for name in Tools._fields))


def promtool(*arguments: str | Path, text: bytes = b"") -> subprocess.CompletedProcess[str]:
    """Run promtool on `text` or on files; its findings are on both outputs."""
    argv = [tools().promtool, *map(str, arguments)]
    done = subprocess.run(argv, input=text, capture_output=True, check=False, timeout=60)
    return subprocess.CompletedProcess(argv, done.returncode, done.stdout.decode(), done.stderr.decode())


class Prometheus:
    """A server of its own in a directory, with the deployed rules. `targets`: addresses by job.

    Scrapes and evaluates every second.
    """

    def __init__(self, directory: Path, targets: Mapping[str, Sequence[str]]) -> None:
        shutil.copytree(DEPLOYED, directory)
        path = directory / "prometheus.yml"
        config = re.sub(r"_interval: \S+", "_interval: 1s", path.read_text())
        for job, addresses in targets.items():
            config = re.sub(rf'"{job}:\d+"', ", ".join(f'"{address}"' for address in addresses), config)
        path.write_text(config)
        options = ["--storage.tsdb.path", str(directory / "data"), "--web.listen-address", "127.0.0.1:0"]
        self._program = Program(
            [tools().prometheus, "--config.file", str(path), *options], directory / "prometheus.log"
        )
        self.address = ""

    def __enter__(self) -> Prometheus:
        self._program.start()
        try:
            self.address = self._wait_for_address()
        except BaseException:
            self._program.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._program.kill()

    def _wait_for_address(self) -> str:
        """The address from its own log, once it is ready."""
        deadline = time.monotonic() + START_SECONDS
        while self._program.running() and time.monotonic() < deadline:
            log = self._program.log_path.read_text()
            address = re.search(r'msg="Listening on".* address=(\S+)', log)
            if address and "Server is ready" in log:
                return address[1]
            time.sleep(0.05)
        raise StartFailed(f"Prometheus did not start:\n{self._program.tail()}")

    def _get(self, path: str, **parameters: str) -> Any:
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"http://{self.address}/api/v1/{path}?{query}", timeout=10) as answer:
            return json.load(answer)["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an expression now, each with `metric` (labels) and `value` (time, text)."""
        return list(self._get("query", query=expression)["result"])

    def rules(self) -> list[dict[str, Any]]:
        """Every rule with its `health`, and for an alert its `alerts` with rendered annotations."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]
