"""The generator: deterministic, every record different, of the size and compressibility behind the published costs."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import zstandard
from click.testing import CliRunner

from bench.lab.generate import RECORD_BYTES, generate, generate_http, write_http

RECORDS = 20_000


@pytest.fixture(scope="module")
def records() -> list[bytes]:
    return list(generate_http(RECORDS, 1))


def test_the_same_seed_gives_the_same_records_and_another_seed_gives_others(records: list[bytes]) -> None:
    assert list(generate_http(RECORDS, 1)) == records
    assert list(generate_http(100, 2)) != records[:100]


def test_the_first_records_do_not_depend_on_the_count(records: list[bytes]) -> None:
    assert list(generate_http(1_234, 1)) == records[:1_234]


def test_every_record_is_different_and_numbered_from_zero(records: list[bytes]) -> None:
    assert len(set(records)) == RECORDS
    assert [json.loads(record)["n"] for record in records] == list(range(RECORDS))


def test_timestamps_never_go_back(records: list[bytes]) -> None:
    stamps = [json.loads(record)["timestamp"] for record in records]
    assert stamps == sorted(stamps)
    assert stamps[-1] > stamps[0]


def test_a_record_has_about_577_bytes_and_zstd_makes_a_seventh_to_a_tenth_of_it(records: list[bytes]) -> None:
    assert 560 <= sum(map(len, records)) / RECORDS + 1 <= 595
    batch = b"\n".join(records[:1_600])
    assert 7 <= len(batch) / len(zstandard.ZstdCompressor(level=1).compress(batch)) <= 10


@pytest.mark.parametrize("size", RECORD_BYTES)
def test_records_of_every_size_have_about_that_size_differ_and_compress_like_real_ones(size: int) -> None:
    some = list(generate_http(900_000 // size, 1, record_bytes=size))
    assert len(set(map(bytes, some))) == len(some)
    assert [json.loads(record)["n"] for record in some] == list(range(len(some)))
    batch = b"\n".join(some)
    assert len(batch) / len(some) == pytest.approx(size, rel=0.06)
    assert 5.5 <= len(batch) / len(zstandard.ZstdCompressor(level=1).compress(batch)) <= 10


def test_a_colo_is_in_the_country_of_its_clients(records: list[bytes]) -> None:
    places = {(row["edge_colo"], row["country"]) for row in map(json.loads, records)}
    assert len(places) == 10
    assert ("FRA", "DE") in places


def test_lines_are_written_whole(records: list[bytes]) -> None:
    out = io.BytesIO()
    write_http(out, 2_500, 1)
    assert out.getvalue().endswith(b"\n")
    assert out.getvalue().splitlines() == records[:2_500]


def test_the_command_writes_to_a_file_or_to_standard_output(tmp_path: Path) -> None:
    path, arguments = tmp_path / "some.log", ["http", "--records", "30", "--seed", "7"]
    assert CliRunner().invoke(generate, [*arguments, "--out", str(path)]).exit_code == 0
    piped = CliRunner().invoke(generate, [*arguments, "--rate", "100000"])
    assert piped.stdout_bytes == path.read_bytes()
    assert path.read_bytes().splitlines() == list(generate_http(30, 7))


def test_a_count_below_one_is_refused() -> None:
    assert CliRunner().invoke(generate, ["http", "--records", "0"]).exit_code == 2
