"""The only door to OpenSSL: contexts for modes, an endpoint without I/O, what a handshake gave, why one failed.

Python's own `ssl` can neither choose nor report a hybrid group; pyOpenSSL over cryptography's OpenSSL can. Two names
used here are private (`SSL._lib`), so versions are pinned, and at every start `self_test` makes a real handshake in
each mode that the configuration names; one that a reload adds is judged by its first link.
Once the handshake is over, bytes go through OpenSSL directly: pyOpenSSL would copy them once more and ask for errors
after every TLS record, a third of what decrypting costs.

Kept on every link: mutual authentication, no tickets, no resumption, no early data, no renegotiation, ALPN.
"""

from __future__ import annotations

import datetime
import functools
import ipaddress
import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
from cryptography import x509
from OpenSSL import SSL

from streams.errors import ConfigError, HandshakeFailed, LinkError, Problem
from streams.security.modes import TLS12, TLS13, ListenerSettings, Mode, canonical_group, listener_settings
from streams.security.pki import key_algorithm

ALPN = b"logfwd/1"
READ_BYTES = 128 * 1024
WRITE_BYTES = 256 * 1024

Context = SSL.Context
_lib, _ffi = SSL._lib, SSL._ffi  # type: ignore[attr-defined]
_VERSIONS = {TLS12: SSL.TLS1_2_VERSION, TLS13: SSL.TLS1_3_VERSION}
_TLS12_CIPHERS = b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384"
_TLS13_CIPHERS = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
ANY_SIGNATURE = (
    "ecdsa_secp256r1_sha256:ecdsa_secp384r1_sha384:rsa_pss_rsae_sha256:rsa_pss_rsae_sha384:rsa_pkcs1_sha256:mldsa65"
)
_MODE_NO_AUTO_CHAIN = 8
_MODE_ENABLE_PARTIAL_WRITE = 1

_VERIFY_REASONS = {
    9: "certificate_not_yet_valid",
    10: "certificate_expired",
    62: "host_mismatch",
    64: "host_mismatch",
    18: "unknown_ca",
    19: "unknown_ca",
    20: "unknown_ca",
    21: "unknown_ca",
    7: "unknown_ca",
    23: "certificate_revoked",
}
_ERROR_REASONS = (
    ("did not return a certificate", "no_client_certificate"),
    ("no suitable key share", "no_shared_group"),
    ("no shared group", "no_shared_group"),
    ("no suitable groups", "no_shared_group"),
    ("no shared cipher", "no_shared_group"),
    ("unsupported protocol", "protocol_version"),
    ("wrong version number", "not_tls"),
    ("http request", "not_tls"),
    ("packet length too long", "not_tls"),
    ("record layer failure", "not_tls"),
    ("no shared signature algorithms", "no_shared_signature_algorithm"),
    ("no application protocol", "alpn"),
    ("unexpected eof", "disconnected"),
)


class _Decrypted(threading.local):
    """Where every endpoint of a thread decrypts to, so that it stays in the core's cache."""

    def __init__(self) -> None:
        self.room = _ffi.new("char[]", READ_BYTES)


_decrypted = _Decrypted()


class Credentials(msgspec.Struct, frozen=True):
    """PEM files of one party: its leaf with intermediates, its key, and the CA it trusts."""

    certificate: Path
    key: Path
    ca: Path


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a handshake gave. Bytes and seconds are the handshake's own; the TCP connect stands apart."""

    version: str
    group: str
    cipher: str
    identities: tuple[str, ...]
    certificate_expires: datetime.datetime | None = None
    certificate_algorithm: str = "none"
    """Of the key in the peer's certificate."""
    handshake_seconds: float = 0.0
    connect_seconds: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0

    def told(self) -> dict[str, object]:
        """In the words of a log line: both ends tell every handshake with these."""
        return {
            "version": self.version,
            "group": self.group,
            "cipher": self.cipher,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "milliseconds": round(self.handshake_seconds * 1e3, 3),
        }


# -- contexts ----------------------------------------------------------------------------------------------------


def client_context(mode: Mode, credentials: Credentials, *, key_log: Path | None = None) -> SSL.Context:
    """A context that offers exactly one mode; raises ConfigError if the files cannot be used."""
    settings = ListenerSettings(mode.version, mode.version, mode.client_groups, mode.signature_algorithms)
    context = _context(settings, key_log)
    _load(context, credentials)
    context.set_alpn_protos([ALPN])
    return context


def foreign_context(mode: Mode, ca: Path, credentials: Credentials | None = None) -> SSL.Context:
    """A client context for servers that are not ours (a Kafka cluster): no ALPN, whatever key their CA signed."""
    context = _context(ListenerSettings(mode.version, mode.version, mode.client_groups, ANY_SIGNATURE), None)
    if credentials is not None:
        _load(context, credentials)
    else:
        _load_file(context.load_verify_locations, "ca", ca)
    return context


def server_context(modes: Iterable[Mode], credentials: Credentials, *, key_log: Path | None = None) -> SSL.Context:
    """A context that serves several modes, best group first; raises ConfigError if the files cannot be used."""
    context = _context(listener_settings(modes), key_log)
    _load(context, credentials)
    context.set_alpn_select_callback(_select_alpn)
    return context


def check_files(credentials: Credentials) -> None:
    """Raise ConfigError for files that no link could be made with."""
    _load(SSL.Context(SSL.TLS_METHOD), credentials)


def certificate_expires(context: SSL.Context) -> datetime.datetime:
    """When the certificate ends that links of this context show."""
    leaf = SSL.Connection(context).get_certificate(as_cryptography=True)
    assert leaf is not None, "contexts are made with one"
    return leaf.not_valid_after_utc


def _select_alpn(_: SSL.Connection, offered: list[bytes]) -> Any:
    return ALPN if ALPN in offered else SSL.NO_OVERLAPPING_PROTOCOLS


def _context(settings: ListenerSettings, key_log: Path | None) -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(_VERSIONS[settings.min_version])
    context.set_max_proto_version(_VERSIONS[settings.max_version])
    context.set_cipher_list(_TLS12_CIPHERS)
    context.set_tls13_ciphersuites(_TLS13_CIPHERS)
    _set_list(_lib.SSL_CTX_set1_curves_list, context, settings.groups)
    _set_list(_lib.SSL_CTX_set1_sigalgs_list, context, settings.signature_algorithms)
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_mode(_MODE_NO_AUTO_CHAIN)
    context.clear_mode(_MODE_ENABLE_PARTIAL_WRITE)
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
    if key_log is not None:
        context.set_keylog_callback(functools.partial(_append_secret, key_log))
    return context


def _set_list(setter: object, context: SSL.Context, names: str) -> None:
    if setter(context._context, names.encode()) != 1:  # type: ignore[operator]
        raise ValueError(f"this OpenSSL does not know all of {names!r}")


def _load(context: SSL.Context, credentials: Credentials) -> None:
    _load_file(context.use_certificate_chain_file, "certificate", credentials.certificate)
    _load_file(context.use_privatekey_file, "key", credentials.key)
    _load_file(context.load_verify_locations, "ca", credentials.ca)
    try:
        context.check_privatekey()
    except SSL.Error as error:
        raise ConfigError([Problem(credentials.key, "tls.key", "is not the certificate's key")]) from error


def _load_file(load: Callable[[str], object], key: str, path: Path) -> None:
    try:
        load(str(path))
    except SSL.Error as error:
        text = f"cannot be used: {_text(error) or 'not readable as PEM'}"
        raise ConfigError([Problem(path, f"tls.{key}", text)]) from error


def _append_secret(path: Path, _: SSL.Connection, line: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab") as out:
        out.write(line + b"\n")


# -- endpoint ----------------------------------------------------------------------------------------------------


class Endpoint:
    """One side of one TLS connection: ciphertext in and out, plaintext in and out, no I/O."""

    def __init__(
        self, context: SSL.Context, *, server_side: bool, host: str | None = None, alpn: bytes | None = ALPN
    ) -> None:
        self._connection = SSL.Connection(context)
        self._server_side = server_side
        self._alpn = alpn
        self.complete = False
        self.bytes_in = self.bytes_out = 0
        self._last_flight: list[bytes | bytearray] = []
        self._pointer = _ffi.new("char **")
        self._starved = False
        self._failed: SSL.Error | None = None
        self._started = 0.0
        self._seconds = 0.0
        if server_side:
            self._connection.set_accept_state()
        else:
            self._connection.set_connect_state()
            if host is not None:
                self._expect_host(host)

    def _expect_host(self, host: str) -> None:
        """Without this OpenSSL takes any name that the CA has signed."""
        parameters = _lib.SSL_get0_param(self._connection._ssl)
        try:
            packed = ipaddress.ip_address(host).packed
        except ValueError:
            name = host.encode("idna")
            self._connection.set_tlsext_host_name(name)
            done = _lib.X509_VERIFY_PARAM_set1_host(parameters, name, len(name))
        else:
            done = _lib.X509_VERIFY_PARAM_set1_ip(parameters, packed, len(packed))
        if done != 1:
            raise ValueError(f"cannot check for the host name {host!r}")

    def handshake(self) -> bool:
        """Go on with the handshake; True when it is complete. Raises HandshakeFailed; `take` has its alert."""
        if not self._started:
            self._started = time.perf_counter()
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            return False
        except SSL.Error as error:
            raise self._failure(error) from error
        self._seconds = time.perf_counter() - self._started
        self.bytes_in -= self._waiting(self._connection._into_ssl)  # data that came with the peer's last flight
        if self._alpn is not None and self._connection.get_alpn_proto_negotiated() != self._alpn:
            raise HandshakeFailed("alpn", f"the peer does not speak {ALPN.decode()}")
        if not self._server_side or self._connection.get_protocol_version_name() == TLS12:
            self._last_flight = self.take()  # the handshake's own; the tickets of a TLS 1.3 server are not
        self.complete = True
        return True

    def facts(self, connect_seconds: float = 0.0) -> Facts:
        """What the handshake gave; of one that failed, what was agreed on and spent so far."""
        connection = self._connection
        leaf = connection.get_peer_certificate(as_cryptography=True)
        cipher = connection.get_cipher_name()
        return Facts(
            version=connection.get_protocol_version_name() if cipher else "none",  # chosen together
            group=canonical_group(connection.get_group_name() or "none") if cipher else "none",
            cipher=cipher or "none",
            identities=identities(leaf) if leaf is not None else (),
            certificate_expires=leaf.not_valid_after_utc if leaf is not None else None,
            certificate_algorithm=key_algorithm(leaf) if leaf is not None else "none",
            handshake_seconds=self._seconds or (time.perf_counter() - self._started if self._started else 0.0),
            connect_seconds=connect_seconds,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
        )

    def feed(self, ciphertext: memoryview | bytes | bytearray) -> None:
        """Take bytes from the peer."""
        if not self.complete:
            self.bytes_in += len(ciphertext)
            if self._server_side and not self._started:
                self._started = time.perf_counter()
        self._starved = False
        self._connection.bio_write(ciphertext)

    def feed_eof(self) -> None:
        """The peer's bytes have ended."""
        self._starved = False
        self._connection.bio_shutdown()

    def take(self) -> list[bytes | bytearray]:
        """Bytes to send to the peer."""
        parts, self._last_flight = self._last_flight, []
        outgoing = self._connection._from_ssl
        if (size := self._waiting(outgoing)) > 0:
            part = bytearray(size)
            _lib.BIO_read(outgoing, _ffi.from_buffer(part), size)
            parts.append(part)
            if not self.complete:
                self.bytes_out += size
        return parts

    def _waiting(self, bio: Any) -> int:
        """Bytes in it."""
        return int(_lib.BIO_get_mem_data(bio, self._pointer))

    def read(self) -> bytes | None:
        """Plaintext that is there, at most READ_BYTES; b"" if none is; None after the peer's close_notify."""
        if not self._starved and self._failed is None:
            room = _decrypted.room
            if filled := self._decrypt(room):
                return bytes(_ffi.buffer(room, filled))
        if self._failed is None:
            return b""
        if isinstance(self._failed, SSL.ZeroReturnError):
            return None
        if isinstance(self._failed, SSL.SysCallError):
            raise LinkError("the link was cut without a close_notify") from self._failed
        raise self._failure(self._failed) from self._failed

    def _decrypt(self, room: Any) -> int:
        """Whole records until the room is full or no more came; what ended the connection is kept for later."""
        connection, filled = self._connection, 0
        while filled < READ_BYTES:
            size = _lib.SSL_read(connection._ssl, room + filled, READ_BYTES - filled)
            if size <= 0:
                self._starved = _lib.SSL_get_error(connection._ssl, size) == _lib.SSL_ERROR_WANT_READ
                if not self._starved:
                    self._failed = self._error_of(size)
                break
            filled += size
        return filled

    def _error_of(self, result: int) -> SSL.Error:
        try:
            self._connection._raise_ssl_error(self._connection._ssl, result)
        except SSL.Error as error:
            return error
        raise AssertionError("unreachable")

    def write(self, plaintext: memoryview | bytes | bytearray) -> None:
        """Encrypt; `take` gives the result."""
        connection, data, size, start = self._connection, _ffi.from_buffer(plaintext), len(plaintext), 0
        while start < size:
            written = _lib.SSL_write(connection._ssl, data + start, min(size - start, WRITE_BYTES))
            if written <= 0:
                error = self._error_of(written)
                raise LinkError(f"cannot encrypt: {_text(error)}") from error
            start += written

    def close(self) -> None:
        """Say goodbye; `take` gives the close_notify."""
        try:
            self._connection.shutdown()
        except SSL.Error:
            return

    def _failure(self, error: SSL.Error) -> HandshakeFailed:
        """Which side said no, and why: the reason if it was ours, the alert if it was the peer's."""
        text = _text(error)
        if "alert" in text:
            alert = text.split("alert", 1)[1].strip()
            return HandshakeFailed("alert_received", f"the peer refused with the alert {alert!r}", alert=alert)
        if "certificate verify failed" in text:
            code = _lib.SSL_get_verify_result(self._connection._ssl)
            detail = _ffi.string(_lib.X509_verify_cert_error_string(code)).decode()
            return HandshakeFailed(_VERIFY_REASONS.get(code, "certificate_invalid"), f"peer's certificate: {detail}")
        if isinstance(error, SSL.SysCallError) or not text:
            return HandshakeFailed("disconnected", "the peer closed the connection during the handshake")
        reason = next((label for part, label in _ERROR_REASONS if part in text), "tls_error")
        return HandshakeFailed(reason, f"TLS: {text}")


def _text(error: SSL.Error) -> str:
    """OpenSSL's own words, innermost last."""
    if error.args and isinstance(error.args[0], list):
        return "; ".join(entry[2] for entry in error.args[0] if entry[2])
    return " ".join(str(part) for part in error.args)


def identities(leaf: x509.Certificate) -> tuple[str, ...]:
    """Who a certificate speaks for: its URI names, then its DNS names."""
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return (*uris, *names.get_values_for_type(x509.DNSName))


# -- self-test ---------------------------------------------------------------------------------------------------


def self_test(modes: Iterable[Mode]) -> None:
    """Make a handshake with ourselves for each mode and check its group; raises ConfigError if one is not to be had."""
    import tempfile

    from streams.security import pki

    with tempfile.TemporaryDirectory(prefix="logfwd-self-test-") as name:
        directory = Path(name)
        authority = pki.create_authority(directory)
        files = authority.issue(identities=["self-test"], hosts=["localhost"], days=1, out=directory / "leaf")
        credentials = Credentials(files.certificate, files.key, directory / "ca.pem")
        for mode in modes:
            try:
                _loopback(mode, credentials)
            except (HandshakeFailed, LinkError, ValueError) as error:
                text = f"self-test: {error}; reinstall the versions of cryptography and pyOpenSSL pinned in uv.lock"
                raise ConfigError([Problem(Path(mode.name), "mode", text)]) from error


def _loopback(mode: Mode, credentials: Credentials) -> None:
    from streams.security.modes import check

    client = Endpoint(client_context(mode, credentials), server_side=False, host="localhost")
    server = Endpoint(server_context([mode], credentials), server_side=True)
    for _ in range(8):
        for one, other in ((client, server), (server, client)):
            if not one.complete:
                one.handshake()
            for part in one.take():
                other.feed(part)
        if client.complete and server.complete:
            check(mode, client.facts())
            check(mode, server.facts())
            return
    raise HandshakeFailed("self_test", "the handshake does not end")
