"""`logbench compare` and `watch`, as small as possible: with fresh processes, and with a running forwarder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bench.compare.command import compare
from bench.lab.load import Base, Load
from bench.lab.site import Site
from bench.watch import UNAVAILABLE, watch

RECORDS_PER_SECOND = 1000
SHORT = ["--sink", "log", "--rounds", "2", "--batches", "5"]


@pytest.mark.slow
def test_fresh_streams_take_turns_with_the_same_batches_and_the_report_shows_it(tmp_path: Path) -> None:
    arguments = [*SHORT, "--handshakes", "4", "--records", "20000", "--out", str(tmp_path), "--json"]
    answer = CliRunner().invoke(compare, arguments)
    assert answer.exit_code == 0, answer.output
    shown = json.loads(answer.stdout)
    assert shown["differs"] == "they differ only in the key-exchange group (X25519 → X25519MLKEM768)"
    assert [link["mode"] for link in shown["links"].values()] == ["classical", "hybrid"]
    assert len(shown["rounds"]) == 2
    for one in shown["rounds"]:
        for name in ("http", "pq-stream"):
            assert len(one[name]["batch_ms"]) == 5
            assert len(one[name]["handshake_ms"]) == len(one[name]["connect_ms"]) == 4
            assert min(one[name]["batch_ms"] + one[name]["handshake_ms"]) > 0
            assert one[name]["speed"]["records"] == 20_000
    assert {line["metric"] for line in shown["lines"]} > {"batch duration, median", "handshake, p95", "full speed"}
    assert shown["verdict"]["words"].startswith("no difference shown: 2 rounds are too few")
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".html", ".json", ".png", ".png"]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A forwarder at work: a classical stream and its hybrid twin, fed for some seconds."""
    with Site(tmp_path) as site:
        site.make_pki()
        listeners = {"127.0.0.1:0": '["hybrid"]', "127.0.0.2:0": '["classical"]'}
        site.write_receiver('type = "log"\ndirectory = "log"', listeners=listeners)
        hybrid, classical = site.start_receiver(listeners=2)
        site.write_forwarder([hybrid])
        source = '[source]\ntype = "file"\npaths = ["http.log"]\n[batch]\nlinger = "50ms"\n'
        site.write_stream("http", f'security = "classical"\nreceivers = ["{classical}"]\n{source}')
        site.write_stream("pq-stream", 'security = "hybrid"\nmirror_of = "http"\n')
        log = site.directory / "http.log"
        log.touch()
        site.start_forwarder()
        site.forwarder.wait_for("link opened", times=2)
        load = Load(Base.generate(tmp_path / "data", 1000, seed=1, record_bytes=577), log, RECORDS_PER_SECOND)
        load.start()
        assert site.wait_until_acknowledged(1, ["http", "pq-stream"], 10)
        yield site
        load.stop()


@pytest.mark.slow
def test_streams_of_a_running_forwarder_are_compared_and_watched_under_their_own_load(site: Site) -> None:
    running = ["--admin", site.admin_address]
    answer = CliRunner().invoke(compare, [*running, "--seconds", "3", "--rounds", "6", "--no-report", "--json"])
    assert answer.exit_code == 0, answer.output
    shown = json.loads(answer.stdout)
    assert "not interleaved" in shown["method"]
    assert "one is the twin of the other" in shown["method"]
    assert shown["links"]["pq-stream"]["group"] == "X25519MLKEM768"
    batches = {name: sum(len(each[name]["batch_ms"]) for each in shown["rounds"]) for name in shown["links"]}
    assert batches["http"] > 10
    assert abs(batches["http"] - batches["pq-stream"]) <= 2  # a twin carries the same ones

    seen = CliRunner().invoke(watch, [*running, "--once", "--every", "0.5"])
    assert seen.exit_code == 0, seen.output
    assert "X25519MLKEM768" in seen.stdout
    streams = _watched(running)["streams"]
    assert [stream["stream"] for stream in streams] == ["http", "pq-stream"]
    assert streams[0]["records_per_second"] > 100
    assert 0.1 < streams[1]["ratios"]["batch_median_ms"] < 10

    receiver = str(site.receiver.wait_for("admin listening")[-1]["address"])
    seen = CliRunner().invoke(watch, ["--admin", receiver, "--once", "--every", "0.2"])
    assert (seen.exit_code, "1 X25519MLKEM768" in seen.stdout) == (0, True), seen.output

    answer = CliRunner().invoke(compare, ["http", "missing", *running, "--no-report"])
    assert (answer.exit_code, "has no stream missing" in answer.output) == (1, True)


def _watched(running: list[str]) -> dict[str, Any]:
    answer = CliRunner().invoke(watch, [*running, "--json", "--every", "0.5"])
    assert answer.exit_code == 0, answer.output
    (shown,) = json.loads(answer.stdout)["rows"]
    return dict(shown)


def test_an_address_that_does_not_answer_is_reported_plainly() -> None:
    silent = ["--admin", "127.0.0.1:9"]
    watched = CliRunner().invoke(watch, [*silent, "--once", "--every", "0.2"])
    assert watched.exit_code == UNAVAILABLE
    compared = CliRunner().invoke(compare, [*silent, "--no-report"])
    assert compared.exit_code == 1
    for answer in (watched, compared):
        assert "does not answer" in " ".join(answer.output.split())
