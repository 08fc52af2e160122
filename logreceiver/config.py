"""The receiver's configuration: listeners, who may write what, and which sink keeps the batches.

`load_receiver` reports every problem at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from streams import schema, toml
from streams.errors import ConfigError, Problem
from streams.kinds import (
    Address,
    AuthorityFile,
    CertificateFile,
    GrantKeyFile,
    KeyFile,
    ListenAddress,
    ModeName,
    PasswordFile,
    Pattern,
    TopicName,
    TopicPattern,
)
from streams.toml import Fault
from streams.units import KIB, MIB

Modes = Annotated[tuple[ModeName, ...], Meta(min_length=1)]


class Tls(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PEM files: own leaf (with intermediates), its key, and the CA that peers must chain to."""

    certificate: CertificateFile
    key: KeyFile
    ca: AuthorityFile


class Listener(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One address and the modes it serves, best first."""

    address: ListenAddress
    modes: Modes = ("hybrid",)


class Allow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An identity (shell pattern over the leaf's URI or DNS names) may write these streams in these modes."""

    identity: Pattern
    streams: Annotated[tuple[Pattern, ...], Meta(min_length=1)]
    modes: Modes = ("hybrid",)
    topic: TopicPattern = "{stream}"


class LogSink(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="log"):
    """The embedded log: segments in a directory, readable by Kafka's own tools."""

    directory: Path
    max_segment_bytes: Annotated[int, Meta(ge=1 * MIB, le=2048 * MIB - 1)] = 256 * MIB
    max_message_bytes: Annotated[int, Meta(ge=1 * KIB, le=8 * MIB)] = 1_048_588
    partition_count: Annotated[int, Meta(ge=1, le=1000)] = 1


class Sasl(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """SASL credentials; the password is read from a file, so that the config holds no secret."""

    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    username: Pattern
    password_file: PasswordFile


class KafkaSink(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="kafka"):
    """An Apache Kafka cluster. `security` is a mode of the TLS leg to it, or "plaintext"."""

    brokers: Annotated[tuple[Address, ...], Meta(min_length=1)]
    security: Literal["plaintext", "classical", "hybrid"] = "plaintext"
    tls: Tls | None = None
    sasl: Sasl | None = None
    produce_timeout_seconds: Annotated[float, Meta(ge=1, le=3600)] = 30.0
    create_topics: bool = False
    partition_count: Annotated[int, Meta(ge=1, le=10_000)] = 1
    replication_factor: Annotated[int, Meta(ge=1, le=100)] = 1


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds on what peers may use of the receiver."""

    max_links: Annotated[int, Meta(ge=1, le=100_000)] = 2000
    max_links_per_identity: Annotated[int, Meta(ge=1, le=100_000)] = 64
    max_memory_bytes: Annotated[int, Meta(ge=16 * MIB)] = 256 * MIB
    handshake_seconds: Annotated[float, Meta(ge=0.1, le=60)] = 10.0
    hello_seconds: Annotated[float, Meta(ge=0.1, le=60)] = 5.0


class Admin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where metrics and health are served."""

    address: ListenAddress = "127.0.0.1:9465"


class Ledger(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where an audit record of every stored batch goes, in the same sink."""

    topic: TopicName = "logfwd.ledger"


class ReceiverConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """logreceiver.toml"""

    tls: Tls
    grant_key_file: GrantKeyFile
    listener: Annotated[tuple[Listener, ...], Meta(min_length=1)]
    allow: Annotated[tuple[Allow, ...], Meta(min_length=1)]
    sink: LogSink | KafkaSink
    limits: Limits = Limits()
    admin: Admin | None = Admin()
    ledger: Ledger | None = Ledger()
    stop_grace_seconds: Annotated[float, Meta(ge=0, le=3600)] = 10.0

    @property
    def modes(self) -> set[str]:
        """Names of the modes that links may use, including the links to Kafka."""
        served = {mode for listener in self.listener for mode in listener.modes}
        to_kafka = {self.sink.security} if isinstance(self.sink, KafkaSink) else set()
        return served | (to_kafka - {"plaintext"})


def load_receiver(path: Path) -> ReceiverConfig:
    """Read and check everything; raises ConfigError with every problem."""
    table = toml.parse(path)
    problems: list[Problem] = []
    config = toml.convert(table, ReceiverConfig, path=path, base=path.absolute().parent, problems=problems)
    if config is not None:
        toml.add(problems, path, _check(config))
    if problems or config is None:
        raise ConfigError(problems)
    return config


def json_schema() -> dict[str, Any]:
    """The JSON Schema of logreceiver.toml."""
    return schema.json_schema(ReceiverConfig)


def _check(config: ReceiverConfig) -> Iterator[Fault]:
    seen: set[str] = set()
    for index, listener in enumerate(config.listener):
        address = listener.address
        if address in seen and not address.endswith(":0"):
            yield (
                f"listener[{index}].address",
                f"{address} is already used by another listener; give all its modes to one listener",
            )
        seen.add(address)
    for index, rule in enumerate(config.allow):
        if config.ledger is not None and rule.topic == config.ledger.topic:
            yield (
                f"allow[{index}].topic",
                f"{rule.topic} is the ledger's topic, which only receivers write; use another topic",
            )
    if isinstance(config.sink, KafkaSink):
        yield from _check_kafka(config.sink)


def _check_kafka(sink: KafkaSink) -> Iterator[Fault]:
    if sink.security == "plaintext" and sink.tls is not None:
        yield "sink.tls", 'has no effect with security = "plaintext"; write security = "hybrid" or "classical"'
    if sink.security != "plaintext" and sink.tls is None:
        yield "sink.tls", f"is missing; mode {sink.security} needs [sink.tls] with certificate, key and ca"
    if sink.sasl is not None and sink.security == "plaintext" and sink.sasl.mechanism == "PLAIN":
        yield "sink.sasl.mechanism", "PLAIN over plaintext sends the password unencrypted; use TLS or SCRAM"
