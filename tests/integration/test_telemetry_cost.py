"""`logbench cost telemetry`: the side without telemetry has no metrics, works all the same, and is not scraped."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest

from bench.lab import unobserved
from bench.lab.load import Base
from bench.lab.rig import Rig, Setup
from bench.speed import telemetry_cost
from tests.support.patience import PATIENCE_SECONDS

RECORDS = 2_000


@pytest.fixture
def base(tmp_path: Path) -> Base:
    return Base.generate(tmp_path / "data.jsonl", RECORDS, seed=1, record_bytes=577)


@pytest.mark.parametrize(("launcher", "observed"), [((), True), (unobserved.LAUNCHER, False)])
def test_programs_deliver_with_and_without_metrics(
    tmp_path: Path, base: Base, launcher: tuple[str, ...], observed: bool
) -> None:
    with Rig(tmp_path / "rig", launcher=launcher) as rig, rig.forwarder(Setup()) as forwarder:
        (feed,) = forwarder.feeds(base)
        feed.stage(1)
        feed.place()
        forwarder.wait_for(RECORDS, 20)
        for program in (forwarder.program, rig.receiver):
            with urllib.request.urlopen(
                f"http://{program.admin_address()}/metrics", timeout=PATIENCE_SECONDS
            ) as answer:
                lines = answer.read().decode().splitlines()
            ours = [line for line in lines if line.startswith(("tls_", "logfwd_", "logreceiver_"))]
            assert bool(ours) == observed


def test_only_the_side_with_telemetry_is_scraped(tmp_path: Path, base: Base) -> None:
    with telemetry_cost.sides("log", Setup(), base, 1, tmp_path) as turns:
        runs = {name: turn() for name, turn in turns.items()}
    assert list(runs) == [telemetry_cost.WITHOUT, telemetry_cost.WITH]
    assert runs[telemetry_cost.WITHOUT]["answers_scraped"] == 0
    assert runs[telemetry_cost.WITH]["answers_scraped"] >= 4, "two programs, two paths"
    assert all(run["records"] == RECORDS for run in runs.values())
