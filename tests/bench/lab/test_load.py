"""The input of measurements: copies that are files of their own, and a load that keeps its rate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.lab.load import BASE_RECORDS, Base, Feed, Load, split_records
from bench.lab.processes import wait_until
from tests.support.patience import PATIENCE_SECONDS

RECORDS = 500


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return Base.generate(tmp_path_factory.mktemp("base") / "data.jsonl", RECORDS, seed=1, record_bytes=577)


def test_a_copy_differs_in_its_first_record_alone(base: Base, tmp_path: Path) -> None:
    first, second = (base.copy(tmp_path / f"{n}", n).read_bytes().splitlines() for n in (1, 2))
    assert json.loads(first[0])["copy"] == f"{1:0{len(first[0]) - 11}d}"
    assert first[0] != second[0]
    assert first[1:] == second[1:] == base.path.read_bytes().splitlines()[1:]
    assert len(first[0]) == base.starts[1] - 1


@pytest.mark.parametrize("records", [1, 20_000, BASE_RECORDS, 5_000_000, 1_234_567])
@pytest.mark.parametrize("record_bytes", [100, 577, 4096])
def test_a_large_count_is_a_small_file_read_many_times(records: int, record_bytes: int) -> None:
    size, copies = split_records(records, record_bytes)
    assert records <= size * copies < records + copies
    assert size * record_bytes <= 300_000_000


def test_only_copies_that_are_stored_are_removed_and_two_are_kept_ahead(base: Base, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    feed = Feed(base, tmp_path / "in")
    names = []
    for acknowledged in (0, RECORDS - 1, RECORDS, 3 * RECORDS):
        feed.keep_ahead(acknowledged)
        names.append(sorted(int(path.suffix[1:]) for path in (tmp_path / "in").iterdir()))
    first = names[0][0]
    assert names == [[first + n, first + n + 1] for n in (0, 0, 1, 3)]
    assert feed.sent == 5 * RECORDS


def test_a_load_keeps_its_rate_repeats_the_base_file_and_reports_its_lateness(base: Base, tmp_path: Path) -> None:
    load = Load(base, tmp_path / "http.log", records_per_second=20_000)
    load.start()
    assert wait_until(lambda: load.sent > 3 * RECORDS, PATIENCE_SECONDS, every_seconds=0.005)
    load.stop()
    lines = (tmp_path / "http.log").read_bytes().splitlines()
    assert len(lines) == load.sent
    assert [json.loads(line)["n"] for line in lines] == [n % RECORDS for n in range(load.sent)]
    assert 0 < load.behind_seconds < 5
