"""The `[sink]` section: one struct for each kind of sink, distinguished by `type`.

A struct answers what the rest of the receiver has to know about its sink (`Settings`), so that no other code asks which
sink it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Protocol

import msgspec
from msgspec import Meta

from streams.config.kinds import Address, PasswordFile, Pattern
from streams.config.sections import SinkTls
from streams.config.toml import Fault
from streams.config.units import KIB, MIB


class Settings(Protocol):
    """What every sink's section offers besides its own keys."""

    one_process: ClassVar[bool]
    """True if only one process at a time may use the sink, so that `--workers` is not for it."""
    live: ClassVar[tuple[str, ...]]
    """The fields that a reload changes; the others wait for a restart."""

    @property
    def produce_most_seconds(self) -> float:
        """How long a batch may be under way to what stores it; 0 where it cannot outlive the receiver."""

    @property
    def tls(self) -> SinkTls | None:
        """Files for TLS to the sink, if it is reached by TLS."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Files with its credentials."""

    @property
    def modes(self) -> frozenset[str]:
        """Names of the modes of its TLS links."""

    @property
    def location(self) -> str:
        """Its kind, and where it is, for people."""

    @property
    def log_directory(self) -> Path | None:
        """The directory of segments that `cat` and `replay` read; None if the sink has none on this machine."""

    def check(self) -> Iterator[Fault]:
        """Faults that concern several keys, with key paths from the top of the file."""


Retained = Annotated[int, Meta(ge=1 * MIB)] | None
RetainedSeconds = Annotated[float, Meta(ge=60)] | None


class LogSink(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="log"):
    """The embedded log: segments in a directory, readable by Kafka's own tools."""

    one_process: ClassVar[bool] = True
    live: ClassVar[tuple[str, ...]] = ()

    directory: Path
    max_segment_bytes: Annotated[int, Meta(ge=1 * MIB, le=2048 * MIB - 1)] = 256 * MIB
    max_message_bytes: Annotated[int, Meta(ge=1 * KIB, le=8 * MIB)] = 1_048_588
    partition_count: Annotated[int, Meta(ge=1, le=1000)] = 1
    retain_bytes: Retained = None
    retain_age_seconds: RetainedSeconds = None
    ledger_retain_bytes: Retained = None
    ledger_retain_age_seconds: RetainedSeconds = None

    @property
    def produce_most_seconds(self) -> float:
        return 0.0

    @property
    def tls(self) -> SinkTls | None:
        return None

    @property
    def files(self) -> tuple[Path, ...]:
        return ()

    @property
    def modes(self) -> frozenset[str]:
        return frozenset()

    @property
    def location(self) -> str:
        return f"log at {self.directory}"

    @property
    def log_directory(self) -> Path | None:
        return self.directory

    def check(self) -> Iterator[Fault]:
        return iter(())


class Sasl(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """SASL credentials; the password is read from a file, so that the config holds no secret."""

    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    username: Pattern
    password_file: PasswordFile


class KafkaSink(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="kafka"):
    """An Apache Kafka cluster. `security` is a mode of the TLS leg to it, or "plaintext"."""

    one_process: ClassVar[bool] = False
    live: ClassVar[tuple[str, ...]] = (
        "security",
        "tls",
        "sasl",
        "create_topics",
        "partition_count",
        "replication_factor",
    )

    brokers: Annotated[tuple[Address, ...], Meta(min_length=1)]
    security: Literal["plaintext", "classical-tls12", "classical", "hybrid-preferred", "hybrid"] = "plaintext"
    tls: SinkTls | None = None
    sasl: Sasl | None = None
    produce_timeout_seconds: Annotated[float, Meta(ge=1, le=3600)] = 30.0
    create_topics: bool = False
    partition_count: Annotated[int, Meta(ge=1, le=10_000)] = 1
    replication_factor: Annotated[int, Meta(ge=1, le=100)] = 1

    @property
    def produce_most_seconds(self) -> float:
        return 2 * self.produce_timeout_seconds  # waiting for a connection, and for the answer

    @property
    def files(self) -> tuple[Path, ...]:
        of_tls = self.tls.paths() if self.tls is not None else ()
        return of_tls + ((self.sasl.password_file,) if self.sasl is not None else ())

    @property
    def modes(self) -> frozenset[str]:
        return frozenset({self.security} - {"plaintext"})

    @property
    def location(self) -> str:
        return f"kafka at {', '.join(self.brokers)}"

    @property
    def log_directory(self) -> Path | None:
        return None

    def check(self) -> Iterator[Fault]:
        if self.security == "plaintext" and self.tls is not None:
            yield "sink.tls", 'has no effect with security = "plaintext"; write security = "hybrid" or "classical"'
        if self.security != "plaintext" and self.tls is None:
            needed = "[sink.tls] with ca, and with certificate and key if brokers ask for them"
            yield "sink.tls", f"is missing; mode {self.security} needs {needed}"
        if self.tls is not None:
            yield from self.tls.incomplete()
        if self.sasl is not None and self.security == "plaintext" and self.sasl.mechanism == "PLAIN":
            yield "sink.sasl.mechanism", "PLAIN over plaintext sends the password unencrypted; use TLS or SCRAM"


AnySink = LogSink | KafkaSink
