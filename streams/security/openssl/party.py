"""Parties over OpenSSL: what `stacks.py` makes for the modes of this stack."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator
from pathlib import Path

from OpenSSL import SSL

from streams.errors import Problem
from streams.security.endpoint import ALPN, Files
from streams.security.modes import Mode
from streams.security.openssl.context import (
    certificate_expires,
    check_files,
    client_context,
    first_expiry,
    foreign_context,
    foreign_server_context,
    server_context,
    verify_files,
)
from streams.security.openssl.endpoint import OpenSSLEndpoint


class OpenSSLParty:
    """Makes endpoints of one context; an `accepting` party waits for the peer's ClientHello."""

    delegated_until: datetime.datetime | None = None
    """OpenSSL knows no delegated credentials."""

    def __init__(
        self,
        context: SSL.Context,
        *,
        accepting: bool,
        alpn: bytes | None = ALPN,
        expires: datetime.datetime | None = None,
    ) -> None:
        self._context = context
        self._accepting = accepting
        self._alpn = alpn
        self._expires = expires

    @property
    def expires(self) -> datetime.datetime:
        """When the first of the certificates that its links show expires."""
        return self._expires or certificate_expires(self._context)

    def endpoint(self, host: str | None = None) -> OpenSSLEndpoint:
        """An endpoint for a new connection. ValueError for a connecting one without a usable name of its server."""
        if not self._accepting and host is None:
            raise ValueError("a connecting party must name the server")
        return OpenSSLEndpoint(self._context, server_side=self._accepting, host=host, alpn=self._alpn)


def client(mode: Mode, files: Files, *, key_log: Path | None = None) -> OpenSSLParty:
    """Connects in exactly one mode. `key_log` gets the TLS secrets of its links (SSLKEYLOGFILE's format)."""
    return OpenSSLParty(client_context(mode, files, key_log=key_log), accepting=False)


def foreign(mode: Mode, files: Files) -> OpenSSLParty:
    """Connects to servers that do not speak our protocol: without ALPN."""
    return OpenSSLParty(foreign_context(mode, files.ca, files), accepting=False, alpn=None)


def anonymous(mode: Mode, section: str, ca: Path) -> OpenSSLParty:
    """Connects to such servers without a certificate of its own."""
    return OpenSSLParty(foreign_context(mode, ca, section=section), accepting=False, alpn=None)


def server(modes: Iterable[Mode], *files: Files) -> OpenSSLParty:
    """Accepts links in any of several modes; `files` has those of every mode, each once."""
    return OpenSSLParty(server_context(modes, *files), accepting=True, expires=first_expiry(files))


def foreign_server(
    modes: Iterable[Mode], section: str, certificate: Path, key: Path, ca: Path | None, alpn: bytes
) -> OpenSSLParty:
    """Accepts clients that do not speak our protocol."""
    context = foreign_server_context(modes, section, certificate, key, ca, alpn)
    return OpenSSLParty(context, accepting=True, alpn=None)


def check(files: Files) -> None:
    """Raise ConfigError for files that no link could use."""
    check_files(files)


def verify(files: Files, *, accepting: bool) -> Iterator[Problem]:
    """Why peers with this stack would refuse our certificate."""
    return verify_files(files, accepting=accepting)
