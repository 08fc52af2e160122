"""The receiver's configuration: listeners, who may write what, and which sink keeps the batches.

`load_receiver` reports every problem at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from logreceiver.sinks.settings import AnySink
from streams.config import schema, toml
from streams.config.kinds import (
    CrlFile,
    Day,
    GrantKeyFile,
    ListenAddress,
    ModeName,
    Network,
    RequestHost,
    RulePattern,
    TopicName,
    TopicPattern,
)
from streams.config.sections import Tls, lacking
from streams.config.toml import Fault
from streams.config.units import MIB
from streams.errors import ConfigError, Problem

Modes = Annotated[tuple[ModeName, ...], Meta(min_length=1)]


class Listener(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One address and the modes it serves, best first."""

    address: ListenAddress
    modes: Modes = ("hybrid",)
    trusted_sources: tuple[Network, ...] = ()
    proxy_from: Annotated[tuple[Network, ...], Meta(min_length=1)] | None = None


class Drain(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Runs that a stream began in this topic may end there, up to and including a day (UTC)."""

    topic: TopicPattern
    until: Day


class Allow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An identity (shell pattern over the leaf's URI or DNS names) may write these streams in these modes."""

    identity: RulePattern
    streams: Annotated[tuple[RulePattern, ...], Meta(min_length=1)]
    modes: Modes = ("hybrid",)
    topic: TopicPattern = "{stream}"
    drains: tuple[Drain, ...] = ()


class Deny(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An identity (shell pattern) that is shut out, whatever the rules allow."""

    identity: RulePattern


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds on what peers may use of the receiver."""

    max_links: Annotated[int, Meta(ge=1, le=100_000)] = 2000
    max_links_per_identity: Annotated[int, Meta(ge=1, le=100_000)] = 64
    max_streams_per_identity: Annotated[int, Meta(ge=1, le=100_000)] = 256
    max_rate_per_identity_bytes: Annotated[int, Meta(ge=MIB)] | None = None
    max_memory_bytes: Annotated[int, Meta(ge=16 * MIB)] = 256 * MIB
    max_handshakes: Annotated[int, Meta(ge=1, le=100_000)] = 1024
    max_link_age_seconds: Annotated[float, Meta(ge=60, le=7 * 86400)] = 7200.0
    handshake_seconds: Annotated[float, Meta(ge=0.1, le=60)] = 10.0
    hello_seconds: Annotated[float, Meta(ge=0.1, le=60)] = 5.0


class Admin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where metrics and health are served."""

    address: ListenAddress = "127.0.0.1:9465"
    hosts: tuple[RequestHost, ...] = ()


class Ledger(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where an audit record of every stored batch goes, in the same sink."""

    topic: TopicName = "logfwd.ledger"


class ReceiverConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """logreceiver.toml"""

    grant_key_file: GrantKeyFile
    listener: Annotated[tuple[Listener, ...], Meta(min_length=1)]
    allow: Annotated[tuple[Allow, ...], Meta(min_length=1)]
    sink: AnySink
    deny: tuple[Deny, ...] = ()
    tls: Tls = Tls()
    crl: tuple[CrlFile, ...] = ()
    crl_required: bool = False
    limits: Limits = Limits()
    admin: Admin | None = Admin()
    ledger: Ledger | None = Ledger()
    stop_grace_seconds: Annotated[float, Meta(ge=0, le=3600)] = 10.0
    watch: bool = False
    control_socket: Path | None = None

    @property
    def served_modes(self) -> set[str]:
        """Names of the modes that the listeners serve."""
        return {mode for listener in self.listener for mode in listener.modes}

    @property
    def modes(self) -> set[str]:
        """Names of the modes that links may use, including the links to the sink."""
        return self.served_modes | self.sink.modes

    @property
    def reserved(self) -> str:
        """The topic that only receivers write; empty without a ledger."""
        return "" if self.ledger is None else self.ledger.topic

    @property
    def certificate_files(self) -> tuple[Path, ...]:
        """Files about certificates, of forwarders, towards the sink and revoked, and the sink's password."""
        return (*(path for files in self.tls.sections() for path in files.paths()), *self.sink.files, *self.crl)

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that it names and that a reload reads again."""
        return (self.grant_key_file, *self.certificate_files)


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
    from streams.config.keys import meanings

    return schema.json_schema(ReceiverConfig, meanings("logreceiver.toml"))


def _apart(names: Iterable[str], tls: Tls) -> Iterator[str]:
    """What is wrong with these modes on one port: they may need different TLS stacks."""
    from streams.security.modes import MODES
    from streams.security.stacks import common_stack, named

    known = [name for name in names if name in MODES]  # an unknown name is a problem of its own
    try:
        if known:
            common_stack(named(known, tls))
    except ConfigError as error:
        yield from (problem.message for problem in error.problems)


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
        yield from ((f"listener[{index}].modes", message) for message in _apart(listener.modes, config.tls))
    for index, rule in enumerate(config.allow):
        topics = {f"allow[{index}].topic": rule.topic} | {
            f"allow[{index}].drains[{number}].topic": drain.topic for number, drain in enumerate(rule.drains)
        }
        for key, topic in topics.items():
            if config.ledger is not None and topic == config.ledger.topic:
                yield key, f"{topic} is the ledger's topic, which only receivers write; use another topic"
    if config.crl_required and not config.crl:
        yield "crl", "is missing; with crl_required, name the revocation list of every authority"
    yield from lacking(config.tls, config.served_modes, accepting=True)
    yield from config.sink.check()
