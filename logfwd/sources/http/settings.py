"""The [source] table of a stream that takes requests over HTTP.

Several streams may share an address: then they share its listener, and must agree on everything that belongs to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from logfwd.sources.terms import ListenerTls, SocketMode
from streams.addresses import UNIX, is_local, split_address
from streams.config.kinds import Pattern, secret, shown
from streams.config.units import KIB, MIB

MOST_BODY_BYTES = 32 * MIB


def check_intake_address(address: str) -> None:
    """HOST:PORT, or a Unix socket by its absolute path."""
    if address.startswith(UNIX):
        if not address.startswith(f"{UNIX}/"):
            raise ValueError(f"{address!r} needs an absolute path, as in 'unix:/run/logfwd/http.sock'")
        return
    split_address(address)


IntakeAddress = Annotated[str, shown(check_intake_address)]
TokenFile = Annotated[Path, secret("write one token into each line, for example from `openssl rand -hex 32`")]


class Terms(NamedTuple):
    """What all streams at one address have in common."""

    address: str
    insecure: bool
    socket_mode: int
    max_connections: int
    header_seconds: float
    body_seconds: float
    tls: ListenerTls | None


class HttpSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="http"):
    """Requests `POST /ingest/STREAM`, answered when their records are durable in the spool."""

    address: IntakeAddress = "127.0.0.1:8088"
    insecure: bool = False
    socket_mode: SocketMode = "0660"
    tls: ListenerTls | None = None
    identities: tuple[Pattern, ...] = ()
    token_file: TokenFile | None = None
    max_body_bytes: Annotated[int, Meta(ge=1 * KIB, le=MOST_BODY_BYTES)] = 16 * MIB
    max_connections: Annotated[int, Meta(ge=1, le=65_536)] = 256
    header_seconds: Annotated[float, Meta(ge=0.1, le=60)] = 10.0
    body_seconds: Annotated[float, Meta(ge=1, le=3600)] = 60.0
    key_window_seconds: Annotated[float, Meta(ge=1, le=7 * 86_400)] = 3600.0
    max_keys: Annotated[int, Meta(ge=1, le=10_000_000)] = 200_000

    @property
    def terms(self) -> Terms:
        """What it shares with the other streams at its address."""
        return Terms(
            self.address,
            self.insecure,
            int(self.socket_mode, 8),
            self.max_connections,
            self.header_seconds,
            self.body_seconds,
            self.tls,
        )

    def claims(self) -> Mapping[str, str]:
        """Nothing: several streams may use one address."""
        return {}

    def shares(self) -> Mapping[str, tuple[str, object]]:
        """Its listener."""
        return {f"the listener at {self.address}": ("source.address", self.terms)}

    def faults(self) -> Iterator[tuple[str, str]]:
        """Problems of the table by itself: (key, message)."""
        if self.identities and (self.tls is None or self.tls.ca is None):
            yield "source.identities", "needs [source.tls] with ca: only a client with a certificate has an identity"
        if self.tls is not None and self.tls.unserved:
            yield "source.tls.modes", f"{self.tls.unserved} is not served to HTTP clients; use hybrid"
        if self.insecure or is_local(self.address):
            return
        if self.tls is None:
            yield (
                "source.address",
                f"{self.address!r} can be reached from other hosts, without TLS; add [source.tls], listen on 127.0.0.1 "
                "or unix:/PATH, or set insecure = true",
            )
        elif self.tls.ca is None and self.token_file is None:
            yield (
                "source.token_file",
                f"is missing: anybody who reaches {self.address!r} could send; add it, or source.tls.ca for clients "
                "with certificates, or set insecure = true",
            )


class Served(NamedTuple):
    """A stream that takes requests, and what its listener has to know of it."""

    stream: str
    settings: HttpSource
    max_record_bytes: int
    block_bytes: int
    refuses_invalid: bool
