"""Looks at what a server negotiates and the chain it shows, whoever signed it; nothing may be sent over such links."""

from __future__ import annotations

from cryptography import x509
from OpenSSL import SSL

from streams.security.endpoint import ALPN, Files
from streams.security.modes import Mode
from streams.security.openssl.context import client_context, unverified_context
from streams.security.openssl.endpoint import OpenSSLEndpoint
from streams.security.openssl.party import OpenSSLParty

_lib, _ffi = SSL._lib, SSL._ffi  # type: ignore[attr-defined]


class Look(OpenSSLParty):
    """A party for one link in one mode, with our certificate and our CA if `files` are given."""

    def __init__(self, mode: Mode, files: Files | None) -> None:
        context = unverified_context(mode) if files is None else client_context(mode, files)
        context.set_verify(SSL.VERIFY_NONE)
        super().__init__(context, accepting=False, alpn=None)
        self._verifies = files is not None
        self._made: OpenSSLEndpoint | None = None

    def endpoint(self, host: str | None = None) -> OpenSSLEndpoint:
        self._made = super().endpoint(host)
        return self._made

    @property
    def chain(self) -> list[x509.Certificate]:
        """What the server has shown, its own certificate first."""
        shown = None if self._made is None else self._made.connection.get_peer_cert_chain(as_cryptography=True)
        return list(shown or ())

    @property
    def speaks_our_protocol(self) -> bool:
        return self._made is not None and self._made.connection.get_alpn_proto_negotiated() == ALPN

    @property
    def fault(self) -> str:
        """Why a link of ours would refuse this chain; empty if it would not, or if no CA was given."""
        if self._made is None or not self._verifies:
            return ""
        code = _lib.SSL_get_verify_result(self._made.connection._ssl)
        return "" if code == 0 else str(_ffi.string(_lib.X509_verify_cert_error_string(code)).decode())
