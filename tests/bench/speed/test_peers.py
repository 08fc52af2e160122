"""`logbench peers`: which programs it needs, and how it has the others set up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bench.lab.site import Program
from bench.speed.fluentbit import FluentBit
from bench.speed.otelcol import OtelCollector
from bench.speed.peers import peers


@pytest.mark.parametrize("arguments", [["otelcol"], ["fluent-bit"], ["rsyslog", "--bin", __file__]])
def test_the_program_is_given_for_all_but_rsyslog(arguments: list[str]) -> None:
    result = CliRunner().invoke(peers, arguments)
    assert result.exit_code == 2
    assert "need --bin" in result.output


def config_of(program: Program) -> dict[str, Any]:
    return json.loads(Path(program.argv[-1].removeprefix("file:")).read_text())  # type: ignore[no-any-return]


def test_what_the_collectors_keep_is_in_files_and_nothing_is_given_up(tmp_path: Path) -> None:
    peer = OtelCollector(Path("/bin/otelcol"), tmp_path / "run", pki=Path("/pki"), broker="b:9092", topic="t")
    sender, receiver = config_of(peer.sender), config_of(peer.receiver)
    assert sender["receivers"]["filelog"]["include"] == [str(peer.input)]
    assert sender["receivers"]["filelog"]["storage"] == "file_storage"
    assert sender["exporters"]["otlp"]["endpoint"] == receiver["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"]
    assert receiver["exporters"]["kafka"]["logs"] == {"topic": "t", "encoding": "raw"}
    assert receiver["exporters"]["kafka"]["producer"]["required_acks"] == -1
    for exporter in (sender["exporters"]["otlp"], receiver["exporters"]["kafka"]):
        assert exporter["sending_queue"]["storage"] == "file_storage"
        assert exporter["sending_queue"]["block_on_overflow"]
        assert exporter["retry_on_failure"]["max_elapsed_time"] == 0
    directories = {each["extensions"]["file_storage"]["directory"] for each in (sender, receiver)}
    assert len(directories) == 2
    assert all(Path(each).is_dir() for each in directories)


def test_what_fluent_bit_keeps_is_in_files_and_nothing_is_given_up(tmp_path: Path) -> None:
    peer = FluentBit(Path("/bin/fluent-bit"), tmp_path / "run", pki=Path("/pki"), broker="b:9092", topic="t")
    configs = [config_of(peer.sender), config_of(peer.receiver)]
    (tail, forward), (forwarded, kafka) = (
        (config["pipeline"]["inputs"][0], config["pipeline"]["outputs"][0]) for config in configs
    )
    assert (tail["path"], forward["port"]) == (str(peer.input), forwarded["port"])
    assert tail["storage.type"] == forwarded["storage.type"] == "filesystem"
    assert forward["retry_limit"] == kafka["retry_limit"] == "no_limits"
    assert forward["require_ack_response"]
    assert forward["tls.verify"]
    assert forwarded["tls.verify"]
    assert (kafka["topics"], kafka["rdkafka.acks"]) == ("t", "all")
    directories = {config["service"]["storage.path"] for config in configs}
    assert len(directories) == 2
    assert all(Path(each).is_dir() for each in directories)
