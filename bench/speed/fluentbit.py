"""Fluent Bit at both ends: tail → forward over TLS, with acknowledgements → forward → kafka with acks=all and zstd.

What it keeps is kept in files, so that a kill loses as little as it can: positions, and the chunks of both ends. The
program is given; keys are those of version 5.1.
"""

from __future__ import annotations

from pathlib import Path

from bench.lab.kafka import free_ports
from bench.lab.site import Program
from bench.speed.peer import Peer, write_config


class FluentBit(Peer):
    """Both ends as programs: `binary`, twice."""

    promise = "fluent-bit: positions and chunks in files, TLS with OpenSSL's defaults, at least once."

    def __init__(self, binary: Path, directory: Path, *, pki: Path, broker: str, topic: str) -> None:
        super().__init__(directory)
        (port,) = free_ports(1)
        self.sender = _program(
            binary,
            directory / "sender",
            {"name": "tail", "path": str(self.input), "db": str(directory / "tail.db"), "read_from_head": True},
            {
                "name": "forward",
                "host": "localhost",
                "port": port,
                "require_ack_response": True,
                **_tls(pki, "forwarder"),
            },
        )
        self.receiver = _program(
            binary,
            directory / "receiver",
            {"name": "forward", "listen": "127.0.0.1", "port": port, "buffer_max_size": "64M", **_tls(pki, "receiver")},
            {
                "name": "kafka",
                "brokers": broker,
                "topics": topic,
                "format": "raw",
                "raw_log_key": "log",
                "rdkafka.acks": "all",
                "rdkafka.enable.idempotence": "true",
                "rdkafka.compression.codec": "zstd",
                "rdkafka.linger.ms": "200",
                "rdkafka.batch.size": "1000000",
                "queue_full_retries": 0,
            },
        )


def _tls(pki: Path, name: str) -> dict[str, object]:
    files = {"ca_file": pki / "ca.pem", "crt_file": pki / f"{name}.pem", "key_file": pki / f"{name}.key"}
    return {"tls": True, "tls.verify": True, **{f"tls.{key}": str(path) for key, path in files.items()}}


def _program(binary: Path, work: Path, source: dict[str, object], target: dict[str, object]) -> Program:
    (work / "storage").mkdir(parents=True)
    config = {
        "service": {"flush": 0.2, "log_level": "warn", "storage.path": str(work / "storage")},
        "pipeline": {
            "inputs": [{**source, "tag": "x", "storage.type": "filesystem"}],
            "outputs": [{**target, "match": "*", "retry_limit": "no_limits"}],
        },
    }
    return Program([str(binary), "-c", str(write_config(work, config))], work / "log")
