"""The [source] table of a stream that takes syslog messages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from logfwd.sources.terms import ListenerTls, SocketMode
from streams.addresses import is_local
from streams.config.kinds import ListenAddress, Pattern, shown
from streams.config.units import KIB, MIB

FIELDS = (
    *("facility", "severity", "timestamp", "host", "app", "procid", "msgid", "structured_data", "message"),
    "message_base64",
)
"""What a message may give its record (message.py)."""


def check_socket_path(path: str) -> None:
    """An absolute path that fits into a socket's address."""
    if not path.startswith("/") or len(path.encode()) > 107 or "\0" in path:
        raise ValueError(f"{path!r} is not an absolute path of at most 107 bytes, as in '/dev/log'")


SocketPath = Annotated[str, shown(check_socket_path)]


class SyslogSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="syslog"):
    """Syslog messages over UDP, TCP, TLS and Unix datagram sockets."""

    udp: tuple[ListenAddress, ...] = ()
    tcp: tuple[ListenAddress, ...] = ()
    tcp_tls: tuple[ListenAddress, ...] = ()
    unix: tuple[SocketPath, ...] = ()
    tls: ListenerTls | None = None
    identities: tuple[Pattern, ...] = ()
    insecure: bool = False
    socket_mode: SocketMode | None = None
    over: Literal["wait", "drop"] | None = None
    max_message_bytes: Annotated[int, Meta(ge=1 * KIB, le=MIB)] = 64 * KIB
    max_buffer_bytes: Annotated[int, Meta(ge=1 * MIB, le=64 * MIB)] = 16 * MIB
    max_connections: Annotated[int, Meta(ge=1, le=65_536)] = 256
    idle_seconds: Annotated[float, Meta(ge=1, le=7 * 86_400)] = 86_400.0
    message_seconds: Annotated[float, Meta(ge=0.1, le=3600)] = 60.0

    @property
    def own_fields(self) -> tuple[str, ...]:
        """The fields that a message may give its record."""
        return FIELDS

    @property
    def permissions(self) -> int:
        """Of its Unix sockets: by default every program may log, as to /dev/log."""
        return int(self.socket_mode or "0666", 8)

    def addresses(self) -> Iterator[tuple[str, str, str]]:
        """Where it listens: (transport, address, key of the address)."""
        for transport in ("udp", "tcp", "tcp_tls", "unix"):
            for index, address in enumerate(getattr(self, transport)):
                yield transport, address, f"source.{transport}[{index}]"

    def claims(self) -> Mapping[str, str]:
        """Its addresses; port 0 is chosen by the system, so it is nobody's."""
        return {
            f"{_port_of(transport)} {address}": key
            for transport, address, key in self.addresses()
            if not address.endswith(":0")
        }

    def shares(self) -> Mapping[str, tuple[str, object]]:
        """Nothing."""
        return {}

    def faults(self) -> Iterator[tuple[str, str]]:
        """Problems of the table by itself: (key, message)."""
        if not any(self.addresses()):
            yield "source", 'has no address; add one, as in udp = ["127.0.0.1:5514"] or unix = ["/dev/log"]'
        seen: dict[str, str] = {}
        for transport, address, key in self.addresses():
            if transport in ("udp", "tcp") and not self.insecure and not is_local(address):
                yield (
                    key,
                    f"{address!r} can be reached from other hosts, without TLS; listen on 127.0.0.1, use tcp_tls, "
                    "or set insecure = true",
                )
            place = f"{_port_of(transport)} {address}"
            if seen.setdefault(place, key) != key and not address.endswith(":0"):
                yield key, f"{address!r} is used by {seen[place]} already; remove one of them"
        yield from self._faults_of_tls()
        if self.over == "wait" and (self.udp or self.unix):
            yield (
                "source.over",
                'cannot be "wait" with udp or unix: such sockets are always read, because one that is not read blocks '
                'the programs that log to it, or loses messages uncounted; write "drop", or leave it out',
            )

    def _faults_of_tls(self) -> Iterator[tuple[str, str]]:
        if self.tcp_tls and self.tls is None:
            yield "source.tls", "is missing; add [source.tls] with certificate, key and ca, or remove tcp_tls"
        if self.tls is None:
            if self.identities:
                yield (
                    "source.identities",
                    "needs [source.tls] with ca: only a certificate has an identity",
                )
            return
        if not self.tcp_tls:
            yield "source.tls", "is not used; add tcp_tls with an address, or remove it"
        if self.tls.ca is None and (self.identities or not self.insecure):
            yield (
                "source.tls.ca",
                "is missing: anybody could send; add it, or set insecure = true",
            )
        if self.tls.unserved:
            yield "source.tls.modes", f"{self.tls.unserved} is not served to syslog clients; use hybrid"


def _port_of(transport: str) -> str:
    return "tcp" if transport == "tcp_tls" else transport


class Served(NamedTuple):
    """A stream that takes syslog messages, and what its listeners have to know of it.

    `defaults`: fields that a record gets if its message has none of that name.
    """

    stream: str
    settings: SyslogSource
    defaults: Mapping[str, Any] = {}
