"""`logreceiver`'s commands that read: what goes to stdout, and with which exit code they end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from logreceiver.sinks.log.sink import LogSink
from logreceiver.sinks.settings import LogSink as Settings
from tests.support.batches import batch, values

TOPIC = "http"


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


def logreceiver(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    script = "from logreceiver.cli import main; main()"
    return subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, check=False, timeout=60)


def test_cat_prints_records_to_stdout_and_damage_to_stderr(directory: Path) -> None:
    assert logreceiver("cat", TOPIC, "-d", str(directory)).stdout.splitlines() == values(30)
    (segment,) = (directory / f"{TOPIC}-0").glob("*.log")
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1  # in the second of three equal batches
    segment.write_bytes(data)
    ended = logreceiver("cat", TOPIC, "-d", str(directory))
    assert ended.returncode == 0
    assert ended.stdout.splitlines() == values(10) + values(10, 20)
    assert b"damaged batch skipped" in ended.stderr


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
