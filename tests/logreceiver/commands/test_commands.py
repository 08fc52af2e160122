"""`logreceiver`'s commands that read: what goes to stdout, and with which exit code they end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from logreceiver.ledger.records import BatchEntry, ReportEntry, encode
from logreceiver.sinks import Kind
from logreceiver.sinks.log import snapshot
from logreceiver.sinks.log.sink import LogSink
from logreceiver.sinks.log.snapshot import Snapshot
from logreceiver.sinks.settings import LogSink as Settings
from streams.records.batch import parse_header
from tests.support.batches import batch, values

TOPIC = "http"
LEDGER = "logfwd.ledger"


@pytest.fixture
async def directory(tmp_path: Path) -> Path:
    """A log of three batches of ten records."""
    sink = LogSink(Settings(directory=tmp_path))
    await sink.start()
    await sink.topic(TOPIC)
    for number in range(3):
        await sink.produce(TOPIC, 0, batch(7, 10 * number))
    await sink.close()
    return tmp_path


async def write_ledger(directory: Path) -> None:
    """What a receiver writes about the batches of `directory`, each in a batch of its own."""
    sink = LogSink(Settings(directory=directory))
    await sink.start()
    await sink.topic(LEDGER)
    who: dict[str, Any] = {
        "stream": TOPIC,
        "twin_of": "",
        "identity": "id",
        "forwarder_id": "f",
        "boot_id": "b",
        "run": 1,
    }
    about: list[bytes] = [
        encode(
            BatchEntry(
                time_ms=number + 1,
                **who,
                producer_id=7,
                producer_epoch=0,
                base_sequence=10 * number,
                records=10,
                bytes=100,
                topic=TOPIC,
                partition=0,
                first_offset=10 * number,
                last_offset=10 * number + 9,
                outcome="stored",
                mode="hybrid",
                group="g",
                tls_version="TLSv1.3",
                session_id="s",
            )
        )
        for number in range(3)
    ]
    about.append(
        encode(ReportEntry(time_ms=9, **who, accepted=30, acknowledged=30, dropped=0, dead_lettered=0, resets=0))
    )
    for sequence, entry in enumerate(about):
        assert (await sink.produce(LEDGER, 0, batch(9, sequence, records=[entry]))).kind is Kind.STORED
    await sink.close()


def logreceiver(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    script = "from logreceiver.cli import main; main()"
    return subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, check=False, timeout=60)


def test_cat_prints_records_to_stdout_and_damage_to_stderr(directory: Path) -> None:
    assert logreceiver("cat", TOPIC, "-d", str(directory)).stdout.splitlines() == values(30)
    (segment,) = (directory / f"{TOPIC}-0").glob("*.log")
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1  # in the second of three equal batches
    segment.write_bytes(data)
    stopped = logreceiver("cat", TOPIC, "-d", str(directory))
    assert (stopped.returncode, stopped.stdout.splitlines()) == (65, values(10))
    assert f"stopped at damage: {segment} at byte ".encode() in stopped.stderr
    assert b"(offsets 10 to 19)" in stopped.stderr
    skipped = logreceiver("cat", TOPIC, "-d", str(directory), "--skip-damaged")
    assert (skipped.returncode, skipped.stdout.splitlines()) == (65, values(10) + values(10, 20))
    assert b"damage skipped" in skipped.stderr


def test_where_a_log_begins_is_said_beside_its_records(directory: Path) -> None:
    (segment,) = (directory / f"{TOPIC}-0").glob("*.log")
    data = segment.read_bytes()
    for _ in range(2):
        data = data[parse_header(data).size :]
    segment.with_name("00000000000000000020.log").write_bytes(data)
    snapshot.write(directory / f"{TOPIC}-0", Snapshot(20))
    segment.unlink()
    ended = logreceiver("cat", TOPIC, "-d", str(directory))
    assert (ended.returncode, ended.stdout.splitlines()) == (0, values(10, 20))
    assert b'"begins_at": 20' in ended.stderr


async def test_the_ledger_counts_what_can_be_read(directory: Path) -> None:
    await write_ledger(directory)
    whole = logreceiver("ledger", TOPIC, "-d", str(directory))
    assert whole.returncode == 0
    assert b"sent 30, stored 30, missing 0, twice 0" in whole.stdout
    (segment,) = (directory / f"{TOPIC}-0").glob("*.log")
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    damaged = logreceiver("ledger", TOPIC, "-d", str(directory))
    assert damaged.returncode == 1
    assert b"sent 30, stored 20, missing 10, twice 0" in damaged.stdout
    segment.write_bytes(b"")
    snapshot.write(directory / f"{TOPIC}-0", Snapshot(30))
    deleted = logreceiver("ledger", TOPIC, "-d", str(directory))
    assert deleted.returncode == 0
    assert b"sent 30, stored 30, missing 0, twice 0" in deleted.stdout
    assert b"the log of http-0 begins at offset 30: older records were deleted" in deleted.stdout


async def test_a_damaged_ledger_is_named_and_what_is_left_of_it_is_counted_on_demand(directory: Path) -> None:
    await write_ledger(directory)
    (segment,) = (directory / f"{LEDGER}-0").glob("*.log")
    data = bytearray(segment.read_bytes())
    data[100] ^= 1
    segment.write_bytes(data)
    stopped = logreceiver("ledger", TOPIC, "-d", str(directory))
    assert (stopped.returncode, stopped.stdout) == (65, b"")
    assert f"stopped at damage: {segment}".encode() in stopped.stderr
    skipped = logreceiver("ledger", TOPIC, "-d", str(directory), "--skip-damaged")
    assert skipped.returncode == 65
    assert b"stored 30" in skipped.stdout


def test_cat_starts_where_it_is_asked_to(directory: Path) -> None:
    assert logreceiver("cat", TOPIC, "-d", str(directory), "--from-offset", "25").stdout.splitlines() == values(5, 25)
    assert logreceiver("cat", TOPIC, "-d", str(directory), "--partition", "1").returncode == 1


def test_without_a_ledger_its_command_says_so_and_ends_with_69(directory: Path) -> None:
    ended = logreceiver("ledger", "http", "-d", str(directory))
    assert ended.returncode == 69
    assert b"the ledger cannot be read" in ended.stderr
    assert not ended.stdout


def test_a_command_for_the_embedded_log_names_the_sink_that_is_not_one(tmp_path: Path) -> None:
    names = {"certificate": "me.pem", "key": "me.key", "ca": "ca.pem"}
    for name in (*names.values(), "grant.key"):
        (tmp_path / name).touch()
    path = tmp_path / "logreceiver.toml"
    tls = "".join(f'{key} = "{name}"\n' for key, name in names.items())
    path.write_text(
        f'grant_key_file = "grant.key"\n[tls]\n{tls}[[listener]]\naddress = ":7443"\n'
        '[[allow]]\nidentity = "*"\nstreams = ["*"]\n[sink]\ntype = "kafka"\nbrokers = ["broker:9092"]\n'
    )
    ended = logreceiver("cat", TOPIC, "-c", str(path))
    assert ended.returncode == 2
    assert b"the configured sink is kafka at broker:9092" in ended.stderr


def test_help_of_every_command_names_its_options_in_words() -> None:
    ended = logreceiver("--help")
    for name in (b"run", b"validate", b"schema", b"cat", b"replay", b"ledger", b"posture"):
        assert name in ended.stdout
