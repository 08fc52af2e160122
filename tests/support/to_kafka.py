"""Both programs as processes in front of a real Kafka: what clients send at one end is compared with the topics."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.lab.kafka import Kafka
from bench.lab.oracle import read_topic
from bench.lab.site import Site
from streams.telemetry.client import NotAnswered


def start(site: Site, kafka: Kafka, streams: Mapping[str, str]) -> None:
    """A receiver that writes to Kafka, and a forwarder with these streams: name → TOML."""
    site.make_pki()
    site.write_receiver(
        f'type = "kafka"\nbrokers = ["{kafka.bootstrap}"]\ncreate_topics = true',
        listeners={"localhost:0": '["hybrid"]'},
    )
    site.write_forwarder(site.start_receiver())
    for name, text in streams.items():
        site.write_stream(name, text)
    site.start_forwarder()


def syslog_source(*, udp: str = "", tcp: str = "", tcp_tls: str = "", unix: Path | str = "", more: str = "") -> str:
    """[source] of a stream; over TLS for clients with a certificate of the site's forwarder, also without ML-KEM."""
    addresses = {"udp": udp, "tcp": tcp, "tcp_tls": tcp_tls, "unix": str(unix)}
    lines = [f'{key} = ["{address}"]' for key, address in addresses.items() if address]
    text = "\n".join(['[source]\ntype = "syslog"', *lines, more])
    if not tcp_tls:
        return text + "\n"
    return f"""{text}
identities = ["spiffe://demo/*"]
[source.tls]
certificate = "pki/receiver.pem"
key = "pki/receiver.key"
ca = "pki/ca.pem"
modes = ["hybrid", "classical"]
"""


def listening(site: Site, stream: str, transport: str) -> str:
    """Where a stream takes syslog messages, since the forwarder's last start."""
    for event in site.forwarder.events():
        if event.get("event") == "syslog listening" and (event["stream"], event["transport"]) == (stream, transport):
            return str(event["address"])
    raise AssertionError(f"{stream} does not listen for {transport}\n{site.forwarder.tail()}")


def records(kafka: Kafka, topic: str) -> list[dict[str, Any]]:
    """What is in a topic now, read by librdkafka."""
    return [json.loads(value) for value in read_topic(kafka.bootstrap, topic)]


def accepted(site: Site, stream: str) -> int:
    """Records of a stream that are in the spool, or were; 0 while the forwarder does not answer."""
    with contextlib.suppress(NotAnswered, KeyError):
        return int(site.streams()[stream]["records"]["accepted"])
    return 0


def rss_bytes(site: Site) -> int:
    """Memory of the forwarder."""
    for line in Path(f"/proc/{site.forwarder.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")
