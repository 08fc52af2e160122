"""What a start must not import: each of these costs milliseconds and memory on every host, and few need it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from bench.lab.processes import wait_until
from bench.lab.site import Program, Site

NOT_IMPORTED = {
    "http.server": "prometheus_client's own servers",
    "http.client": "streams.telemetry.client, for commands that ask a running program",
    "urllib.request": "the same",
    "wsgiref": "prometheus_client's own servers",
    "prometheus_client.exposition": "waits for the first scrape",
    "prometheus_client.gc_collector": "not shown",
    "importlib.metadata": "the version, for the API; crc32c would look its own up",
    "zipfile": "importlib.metadata",
    "csv": "importlib.metadata",
    "email.message": "importlib.metadata and HTTP clients",
    "argparse": "crc32c's own command line",
    "aiokafka.client": "aiokafka's consumers and producers",
    "aiokafka.consumer": "not used",
    "aiokafka.producer": "not used",
    "h11": "waits for the first request to the admin address; forwarders with http sources",
    "blake3": "forwarders with http sources",
    "sqlite3.dump": "nobody",
    "pqcrypto": "the experimental modes",
    "streams.security.tls13": "the same",
}
"""Modules and packages, each with who would import it, or what it is for."""


def imported(program: Program) -> set[str]:
    """Every module that it has imported by now, as `python -X importtime` tells."""
    return set(re.findall(r"^import time: .*\| +(\S+)$", program.log_path.read_text(), re.MULTILINE))


def told(program: Program) -> None:
    program.argv[:0] = [sys.executable, "-X", "importtime"]


def excess(modules: set[str], *, but: tuple[str, ...] = ()) -> list[str]:
    return sorted(
        f"{name}: {why}"
        for name, why in NOT_IMPORTED.items()
        if name not in but and any(module == name or module.startswith(f"{name}.") for module in modules)
    )


def test_a_start_imports_what_it_needs_and_nothing_else(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        site.make_pki()
        told(site.receiver)
        told(site.forwarder)
        site.write_receiver('type = "log"\ndirectory = "log"', listeners={"127.0.0.1:0": '["hybrid"]'})
        site.write_forwarder(site.start_receiver())
        site.write_stream("http", '[source]\ntype = "file"\npaths = ["in.log"]\n')
        (tmp_path / "in.log").write_text('{"a":1}\n')
        site.forwarder.start()
        segments = tmp_path / "log"
        assert wait_until(lambda: any(path.stat().st_size for path in segments.glob("http-*/*.log")), 30)
        for program in (site.forwarder, site.receiver):
            assert "structlog" in imported(program), program.tail()
            assert not excess(imported(program)), program.argv


def test_a_kafka_sink_imports_parts_of_its_library(tmp_path: Path) -> None:
    script = "import logreceiver.cli, logreceiver.service, logreceiver.sinks.kafka.sink"
    program = Program([sys.executable, "-X", "importtime", "-c", script], tmp_path / "log")
    program.start()
    assert program.wait() == 0
    assert "aiokafka.conn" in imported(program)
    assert not excess(imported(program))


@pytest.mark.parametrize("name", ["prometheus_client", "crc32c", "aiokafka"])
def test_who_asks_for_more_than_parts_gets_all(name: str) -> None:
    script = f"from streams.packages import in_parts; in_parts({name!r}); import {name}; {name}.__version__"
    if name == "prometheus_client":
        script = (
            f"from streams.packages import in_parts; in_parts({name!r}); from {name} import generate_latest, Counter"
        )
    program = Program([sys.executable, "-W", "error", "-c", script], Path("/dev/null"))
    program.start()
    assert program.wait() == 0
