"""`logfwd spool`: what it prints for a spool that a forwarder left behind, and requeued dead letters."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from click.testing import CliRunner

from logfwd import state_dir
from logfwd.cli import main
from logfwd.spool.store import Spool
from streams.records import batch as recordbatch
from streams.records.body import Extras, frame, header_fields, key_field
from tests.support import spool_v1
from tests.support.spools import accept, backlog_of, balanced, dead_letters, fill, waiting
from tests.support.tls import Parties


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """A command configures the logs of its process, which here is that of all tests."""
    root, configured = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.configure(**configured)


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


@pytest.fixture
def old_config(config: Path) -> Path:
    """The same installation with a spool of version 1 that no forwarder has opened yet."""
    spool = config.parent / "state" / "http.spool"
    for found in spool.parent.iterdir():
        found.unlink()
    spool_v1.closed(spool.parent)
    return config


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


@pytest.mark.parametrize("change", ["positions SET value = 'text'", "meta SET value = x'00'", "keys SET progress = -1"])
def test_verify_reports_a_row_of_the_wrong_shape_and_exits_with_1(config: Path, tmp_path: Path, change: str) -> None:
    assert "no problems" in run(config, "verify", "http")[1]
    with contextlib.closing(sqlite3.connect(tmp_path / "state" / "http.spool")) as connection, connection:
        connection.execute("INSERT INTO keys VALUES (1, zeroblob(16), 0, 0, 0, 0, x'', 0.0)")
        connection.execute(f"UPDATE {change}")
    code, output = run(config, "verify", "http")
    assert (code, f"invalid row in {change.split(maxsplit=1)[0]}" in output) == (1, True)


def test_a_requeued_dead_letter_waits_at_the_end(config: Path, tmp_path: Path) -> None:
    (row,) = json.loads(run(config, "ls", "--json")[1])
    assert run(config, "requeue", "http", "--id", "4711")[0] == 1
    assert run(config, "requeue", "http", "--id", str(row["dead_letters"][0]["id"])) == (0, "requeued 3 records\n")
    assert "no problems" in run(config, "verify", "http")[1]
    spool = tmp_path / "state" / "http.spool"
    assert dead_letters(spool) == []
    assert asyncio.run(waiting(spool))[0] == [*range(3, 20), 2]


def test_the_batch_that_would_be_sent_first_is_set_aside_and_can_be_requeued(config: Path, tmp_path: Path) -> None:
    spool = tmp_path / "state" / "http.spool"
    code, output = run(config, "set-aside", "http")
    assert (code, output.endswith("with 3 records\n")) == (0, True)
    assert "no problems" in run(config, "verify", "http")[1]
    assert dead_letters(spool) == [2, 3]
    numbers, _, backlog = asyncio.run(waiting(spool))
    assert numbers == [*range(4, 20)]
    assert balanced(backlog)
    assert run(config, "requeue", "http") == (0, "requeued 6 records\n")
    assert asyncio.run(waiting(spool))[0] == [*range(4, 20), 2, 3]


def test_nothing_is_set_aside_where_nothing_waits_or_a_forwarder_runs(config: Path, tmp_path: Path) -> None:
    with state_dir.lock(tmp_path / "state"):
        assert "stop the forwarder, set the batch aside" in run(config, "set-aside", "http")[1]
    for _ in range(17):
        assert run(config, "set-aside", "http")[0] == 0
    assert run(config, "set-aside", "http") == (1, "Error: stream http has no waiting batch\n")


def test_a_requeued_batch_is_the_same_to_its_last_byte_keys_and_headers_included(config: Path, tmp_path: Path) -> None:
    extras = Extras(b"", None, [key_field(b"k"), key_field(None)], header_fields([(b"host", b"web-1")]))
    framed, count = frame([b'{"n":1}', b"{}"], 1 << 20, extras)
    payload = recordbatch.pack(framed, count, timestamp_ms=1_700_000_000_000, codec=recordbatch.Codec.ZSTD).payload
    with contextlib.closing(sqlite3.connect(tmp_path / "state" / "http.spool")) as connection:
        with connection:
            connection.execute("UPDATE dead_letters SET payload = ?, record_count = 2", (payload,))
        assert run(config, "requeue", "http") == (0, "requeued 2 records\n")
        (last,) = connection.execute("SELECT payload FROM blobs ORDER BY id DESC LIMIT 1").fetchone()
    assert bytes(last) == payload


def test_for_a_stream_without_a_spool_the_error_names_the_existing_ones(config: Path) -> None:
    assert run(config, "show", "dns") == (
        1,
        f"Error: stream 'dns' has no spool in {config.parent}/state; there are spools for: http\n",
    )


def test_a_spool_of_version_1_is_shown_and_left_as_it_is(old_config: Path, tmp_path: Path) -> None:
    path = old_config.parent / "state" / "http.spool"
    before = path.read_bytes()
    rows = {row["stream"]: row for row in json.loads(run(old_config, "ls", "--json")[1])}
    http, twin = rows["http"], rows["pq-stream"]
    assert (http["batches"], http["records"], http["dead_letter_records"], http["runs"]) == (14, 39, 3, 2)
    assert (twin["batches"], twin["twin_of"]) == (7, "http")
    assert [(place["key"], place["offset"]) for place in http["positions"]] == [("http-live", 16), ("http-rotated", 7)]
    assert http["totals"] == {
        **dict.fromkeys(("dropped", "sampled", "limited", "filtered"), 0),
        "accepted": 48,
        "invalid": 16,
        "acknowledged": 6,
        "dead_lettered": 3,
        "resets": 1,
    }
    assert len(run(old_config, "show", "http", "--records", "0")[1].splitlines()) == 14
    assert "no problems" in run(old_config, "verify", "http")[1]
    assert run(old_config, "export", "http", "--out", str(tmp_path / "out"))[0] == 0
    assert [json.loads(line)["n"] for line in (tmp_path / "out").read_text().splitlines()] == list(range(9, 48))
    assert path.read_bytes() == before


def test_requeue_works_on_a_spool_of_version_1(old_config: Path) -> None:
    assert run(old_config, "requeue", "http") == (0, "requeued 3 records\n")
    assert "no problems" in run(old_config, "verify", "http")[1]
    (http, _) = json.loads(run(old_config, "ls", "--json")[1])
    assert (http["records"], http["dead_letter_records"]) == (42, 0)


# -- what removed streams left ---------------------------------------------------------------------------------------


def remove_from_config(config: Path, stream: str = "http") -> None:
    """The stream is configured no more; another one is."""
    (config.parent / "streams.d" / f"{stream}.toml").unlink()
    (config.parent / "streams.d" / "dns.toml").write_text('name = "dns"\n[source]\ntype = "stdin"\n')


def test_a_configured_stream_s_spool_is_not_removed(config: Path, tmp_path: Path) -> None:
    code, output = run(config, "rm", "http", "--force")
    assert (code, "stream http is configured; remove its file from" in output) == (1, True)
    assert (tmp_path / "state" / "http.spool").is_file()


def test_what_was_not_stored_is_counted_and_stays_unless_forced(config: Path, tmp_path: Path) -> None:
    remove_from_config(config)
    (tmp_path / "state" / "http.spool.damaged-1").touch()
    counts = "http: waiting batches 17 (51 records, 2260 bytes), dead letters 1 (3 records)"
    code, output = run(config, "rm", "http")
    assert (code, f"holds what was not stored yet: {counts}. Export it" in output) == (1, True), output
    assert "51" in run(config, "ls")[1]
    code, output = run(config, "rm", "http", "--force")
    assert code == 0
    assert "removed" in output
    assert f"discarded {counts}" in output
    assert {found.name for found in (tmp_path / "state").iterdir()} == {"lock", "http.spool.damaged-1"}
    assert "http.spool.damaged-1, a damaged spool that was set aside" in output


def test_a_forwarder_that_runs_keeps_the_spool_of_a_removed_stream(config: Path, tmp_path: Path) -> None:
    remove_from_config(config)
    with state_dir.lock(tmp_path / "state"):
        code, output = run(config, "rm", "http", "--force")
    assert (code, "stop the forwarder, remove the spool, and start it again" in output) == (1, True)
    assert (tmp_path / "state" / "http.spool").is_file()


def test_a_removed_twin_leaves_the_file_and_the_payloads_of_its_original(config: Path, tmp_path: Path) -> None:
    spool = tmp_path / "state" / "http.spool"

    async def mirror() -> None:
        async with Spool(spool) as opened:
            original, twin = backlog_of(opened), backlog_of(opened, "pq")
            for number in range(20, 30):
                await accept(opened, number, original, twin)

    asyncio.run(mirror())
    validated = CliRunner().invoke(main, ["validate", "-c", str(config)])
    assert (validated.exit_code, "pq: waiting batches 10 (30 records" in validated.output) == (0, True)
    assert run(config, "rm", "pq")[0] == 1
    code, output = run(config, "rm", "pq", "--force")
    assert (code, output.splitlines()[0]) == (0, f"removed pq from {spool}")
    assert "no problems" in run(config, "verify", "http")[1]
    assert [row["stream"] for row in json.loads(run(config, "ls", "--json")[1])] == ["http"]
    assert asyncio.run(waiting(spool))[0] == list(range(3, 30))


def test_a_spool_without_waiting_batches_is_removed_at_once(config: Path, tmp_path: Path) -> None:
    remove_from_config(config)
    spool = tmp_path / "state" / "http.spool"
    with contextlib.closing(sqlite3.connect(spool)) as connection, connection:
        for table in ("batches", "blobs", "dead_letters"):
            connection.execute(f"DELETE FROM {table}")
    assert run(config, "rm", "http")[0] == 0
    assert not spool.exists()
    assert run(config, "rm", "http") == (
        1,
        f"Error: stream 'http' has no spool in {tmp_path}/state; there are spools for: none\n",
    )


def test_a_spool_can_be_looked_at_by_who_may_not_read_the_key(config: Path) -> None:
    (key,) = [line.partition('"')[2].rstrip('"') for line in config.read_text().splitlines() if line.startswith("key")]
    (config.parent / key).unlink()
    code, output = run(config, "ls")
    assert (code, output.splitlines()[1].split()[0]) == (0, "http"), output
