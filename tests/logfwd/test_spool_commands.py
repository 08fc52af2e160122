"""`logfwd spool`: what it prints for a spool that a forwarder left behind, and requeued dead letters."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from logfwd.cli import main
from tests.support.spools import dead_letters, fill, waiting
from tests.support.tls import Parties


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """An installation whose spool holds batches 3 to 19; batch 2 is a dead letter, 0 and 1 were acknowledged."""
    Parties(tmp_path / "pki")
    path = tmp_path / "logfwd.toml"
    path.write_text(
        'state_dir = "state"\nreceivers = ["localhost:1"]\n'
        '[tls]\ncertificate = "pki/forwarder.pem"\nkey = "pki/forwarder.key"\nca = "pki/ca.pem"\n'
    )
    (tmp_path / "streams.d").mkdir()
    (tmp_path / "streams.d" / "http.toml").write_text('name = "http"\n[source]\ntype = "stdin"\n')
    asyncio.run(fill(tmp_path / "state" / "http.spool"))
    return path


def run(config: Path, command: str, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["spool", command, *arguments, "-c", str(config)])
    return result.exit_code, result.output


def test_ls_lists_waiting_batches_and_dead_letters(config: Path) -> None:
    code, output = run(config, "ls", "--json")
    (row,) = json.loads(output)
    assert code == 0
    assert (row["stream"], row["batches"], row["records"], row["dead_letter_records"]) == ("http", 17, 51, 3)
    assert [letter["code"] for letter in row["dead_letters"]] == ["too_large"]
    assert run(config, "ls")[1].splitlines()[1].split()[:3] == ["http", "17", "51"]


def test_show_prints_batches_in_their_order_and_no_more_records_than_asked_for(config: Path) -> None:
    code, output = run(config, "show", "http", "--records", "4")
    lines = output.splitlines()
    assert code == 0
    assert [json.loads(line)["n"] for line in lines if line.startswith("{")] == [9, 10, 11, 12]
    assert len([line for line in lines if line.startswith("# batch ")]) == 2
    assert len(run(config, "show", "http", "--records", "0")[1].splitlines()) == 17


def test_export_writes_the_waiting_records_or_the_dead_letters(config: Path, tmp_path: Path) -> None:
    for arguments, records in ((), range(9, 60)), (("--dead-letters",), range(6, 9)):
        out = tmp_path / f"out{len(arguments)}"
        assert run(config, "export", "http", "--out", str(out), *arguments)[0] == 0
        assert [json.loads(line)["n"] for line in out.read_text().splitlines()] == list(records)
    assert "exists already" in run(config, "export", "http", "--out", str(out))[1]


def test_a_requeued_dead_letter_waits_at_the_end(config: Path, tmp_path: Path) -> None:
    (row,) = json.loads(run(config, "ls", "--json")[1])
    assert run(config, "requeue", "http", "--id", "4711")[0] == 1
    assert run(config, "requeue", "http", "--id", str(row["dead_letters"][0]["id"])) == (0, "requeued 3 records\n")
    assert "no problems" in run(config, "verify", "http")[1]
    spool = tmp_path / "state" / "http.spool"
    assert dead_letters(spool) == []
    assert asyncio.run(waiting(spool))[0] == [*range(3, 20), 2]


def test_for_a_stream_without_a_spool_the_error_names_the_existing_ones(config: Path) -> None:
    assert run(config, "show", "dns") == (
        1,
        f"Error: stream 'dns' has no spool in {config.parent}/state; there are spools for: http\n",
    )
