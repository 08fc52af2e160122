"""Parties over OpenSSL: what `stacks.py` makes for the modes of this stack."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from pathlib import Path

from OpenSSL import SSL

from streams.security.endpoint import ALPN, Credentials
from streams.security.modes import Mode
from streams.security.openssl.context import (
    certificate_expires,
    check_files,
    client_context,
    foreign_context,
    server_context,
)
from streams.security.openssl.endpoint import OpenSSLEndpoint


class OpenSSLParty:
    """Makes endpoints of one context; an `accepting` party waits for the peer's ClientHello."""

    def __init__(self, context: SSL.Context, *, accepting: bool, alpn: bytes | None = ALPN) -> None:
        self._context = context
        self._accepting = accepting
        self._alpn = alpn

    @property
    def expires(self) -> datetime.datetime:
        """When the certificate that its links show expires."""
        return certificate_expires(self._context)

    def endpoint(self, host: str | None = None) -> OpenSSLEndpoint:
        """An endpoint for a new connection. ValueError for a connecting one without a usable name of its server."""
        if not self._accepting and host is None:
            raise ValueError("a connecting party must name the server")
        return OpenSSLEndpoint(self._context, server_side=self._accepting, host=host, alpn=self._alpn)


def client(mode: Mode, credentials: Credentials, *, key_log: Path | None = None) -> OpenSSLParty:
    """Connects in exactly one mode. `key_log` gets the TLS secrets of its links (SSLKEYLOGFILE's format)."""
    return OpenSSLParty(client_context(mode, credentials, key_log=key_log), accepting=False)


def foreign(mode: Mode, credentials: Credentials) -> OpenSSLParty:
    """Connects to servers that do not speak our protocol: without ALPN."""
    return OpenSSLParty(foreign_context(mode, credentials.ca, credentials), accepting=False, alpn=None)


def server(modes: Iterable[Mode], credentials: Credentials) -> OpenSSLParty:
    """Accepts links in any of several modes."""
    return OpenSSLParty(server_context(modes, credentials), accepting=True)


def check(credentials: Credentials) -> None:
    """Raise ConfigError for files that no link could use."""
    check_files(credentials)
