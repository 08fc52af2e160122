"""`logbench files`: files come and go, and every line arrives."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from bench.speed.files import LEAST_SAMPLES, files

FILES, OPEN = 100, 20


@pytest.mark.slow
def test_lines_arrive_in_files_that_come_and_go_with_few_of_them_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.speed.files.SETTLE_SECONDS", 0.0)
    options = [
        "--files",
        str(FILES),
        "--open",
        str(OPEN),
        "--rounds",
        "2",
        "--turnover",
        "2",
        "--seconds",
        "1",
        "--json",
    ]
    answer = CliRunner().invoke(files, options)
    assert answer.exit_code == 0, answer.output
    first, second = json.loads(answer.stdout)["rows"]
    assert second["names"] >= 3 * FILES > first["names"] >= FILES
    for row in (first, second):
        assert row["files"] < 2 * FILES
        assert OPEN < row["descriptors"] < 4 * OPEN
        assert all(len(row["delays_ms"][kind]) >= LEAST_SAMPLES for kind in ("last", "any", "new"))
