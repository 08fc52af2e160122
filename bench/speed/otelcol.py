"""The OpenTelemetry Collector at both ends: filelog → otlp over TLS → otlp → kafka with acks=all and zstd.

Everything it keeps is kept in files, so that a kill loses as little as it can: positions, and the queues of both ends.
The program is given: a distribution with the receivers `filelog` and `otlp`, the exporters `otlp` and `kafka`, and the
extension `file_storage`, such as `otelcol-contrib`; keys are those of version 0.165.
"""

from __future__ import annotations

import json
from pathlib import Path

from bench.lab.kafka import free_ports
from bench.lab.site import Program
from bench.speed.peer import Peer, write_config

_QUEUE = {
    "storage": "file_storage",
    "queue_size": 100_000,
    "sizer": "items",
    "block_on_overflow": True,
    "num_consumers": 4,
    "batch": {"flush_timeout": "200ms", "min_size": 8192, "max_size": 8192},
}
_RETRY = {"initial_interval": "100ms", "max_interval": "1s", "max_elapsed_time": 0}


class OtelCollector(Peer):
    """Both ends as programs: `binary`, twice."""

    promise = "otelcol: positions and queues in files, TLS with Go's defaults, at least once."

    def __init__(self, binary: Path, directory: Path, *, pki: Path, broker: str, topic: str) -> None:
        super().__init__(directory)
        address = f"localhost:{free_ports(1)[0]}"
        tls = {"ca_file": f"{pki}/ca.pem", "cert_file": f"{pki}/forwarder.pem", "key_file": f"{pki}/forwarder.key"}
        self.sender = _program(
            binary,
            directory / "sender",
            {"filelog": {"include": [str(self.input)], "start_at": "beginning", "storage": "file_storage"}},
            {"otlp": {"endpoint": address, "tls": tls, "sending_queue": _QUEUE, "retry_on_failure": _RETRY}},
        )
        tls = {
            "client_ca_file": f"{pki}/ca.pem",
            "cert_file": f"{pki}/receiver.pem",
            "key_file": f"{pki}/receiver.key",
        }
        self.receiver = _program(
            binary,
            directory / "receiver",
            {"otlp": {"protocols": {"grpc": {"endpoint": address, "tls": tls, "max_recv_msg_size_mib": 64}}}},
            {
                "kafka": {
                    "brokers": [broker],
                    "logs": {"topic": topic, "encoding": "raw"},
                    "producer": {"required_acks": -1, "compression": "zstd"},
                    "sending_queue": _QUEUE,
                    "retry_on_failure": _RETRY,
                }
            },
        )

    def line_of(self, value: bytes) -> bytes:
        """It stores a line as a JSON string."""
        return str(json.loads(value)).encode()


def _program(binary: Path, work: Path, receivers: dict[str, object], exporters: dict[str, object]) -> Program:
    (work / "storage").mkdir(parents=True)
    config = {
        "extensions": {"file_storage": {"directory": str(work / "storage")}},
        "receivers": receivers,
        "exporters": exporters,
        "service": {
            "extensions": ["file_storage"],
            "pipelines": {"logs": {"receivers": list(receivers), "exporters": list(exporters)}},
            "telemetry": {"metrics": {"level": "none"}, "logs": {"level": "warn"}},
        },
    }
    return Program([str(binary), "--config", f"file:{write_config(work, config)}"], work / "log")
