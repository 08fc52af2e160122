"""An endpoint over OpenSSL: its handshake, what that negotiated, why one failed, and the data of a link.

After the handshake, bytes go through OpenSSL directly: pyOpenSSL would copy them once more and ask for errors after
every TLS record, a third of the cost of decryption.
"""

from __future__ import annotations

import ipaddress
import threading
import time
from typing import Any

from cryptography.x509 import Certificate
from OpenSSL import SSL

from streams.errors import HandshakeFailed, LinkError
from streams.security.authentication import signed_with, strength
from streams.security.chains import authentication
from streams.security.endpoint import ALPN, CertificateId, Facts
from streams.security.explaining import hosts
from streams.security.openssl.groups import canonical_group
from streams.security.pki import certificate_id, identities, key_algorithm

READ_BYTES = 128 * 1024
WRITE_BYTES = 64 * 1024
FEED_BYTES = 32 * 1024
"""What OpenSSL gets at a time: its buffers stay as large, while the link lives, as what they ever held."""

_lib, _ffi = SSL._lib, SSL._ffi  # type: ignore[attr-defined]
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
    """The buffer that all endpoints of a thread decrypt into, so that it stays in the core's cache."""

    def __init__(self) -> None:
        self.room = _ffi.new("char[]", READ_BYTES)


_decrypted = _Decrypted()


class OpenSSLEndpoint:
    """One side of one TLS connection; `Endpoint` says what each method does. `alpn` None: no ALPN (foreign servers)."""

    renews_keys = False
    has_records = True

    def __init__(
        self, context: SSL.Context, *, server_side: bool, host: str | None = None, alpn: bytes | None = ALPN
    ) -> None:
        self._connection = SSL.Connection(context)
        self._server_side = server_side
        self._host = host
        self._alpn = alpn
        self.complete = False
        self.bytes_in = self.bytes_out = 0
        self._outgoing: list[bytes | bytearray] = []
        """What OpenSSL has written."""
        self._pointer = _ffi.new("char **")
        self._starved = False
        self._unfed = memoryview(b"")
        """What has come and is not in OpenSSL's buffer yet."""
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
        """Without this, OpenSSL accepts any name that the CA has signed; a common name is none (RFC 9525 section 2)."""
        parameters = _lib.SSL_get0_param(self._connection._ssl)
        _lib.X509_VERIFY_PARAM_set_hostflags(parameters, _lib.X509_CHECK_FLAG_NEVER_CHECK_SUBJECT)
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

    @property
    def connection(self) -> SSL.Connection:
        """For whoever looks at the chain that was shown."""
        return self._connection

    def handshake(self) -> bool:
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
        self._collect()  # while it counts as the handshake's
        self.complete = True
        return True

    def facts(self, connect_seconds: float = 0.0) -> Facts:
        connection = self._connection
        leaf = connection.get_peer_certificate(as_cryptography=True)
        key = key_algorithm(leaf) if leaf is not None else "none"
        cipher = connection.get_cipher_name()
        return Facts(
            version=connection.get_protocol_version_name() if cipher else "none",  # chosen together
            group=canonical_group(connection.get_group_name() or "none") if cipher else "none",
            cipher=cipher or "none",
            identities=identities(leaf) if leaf is not None else (),
            authentication=self._authentication(key),
            certificates=self._certificates(leaf),
            certificate_expires=leaf.not_valid_after_utc if leaf is not None else None,
            certificate_algorithm=key,
            handshake_seconds=self._seconds or (time.perf_counter() - self._started if self._started else 0.0),
            connect_seconds=connect_seconds,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
        )

    def _certificates(self, leaf: Certificate | None) -> tuple[CertificateId, ...]:
        """Most chains have nothing between leaf and root: for these, no other certificate is read."""
        if leaf is None or not self.complete:
            return ()
        chain = _lib.SSL_get0_verified_chain(self._connection._ssl)
        if chain == _ffi.NULL or _lib.sk_X509_num(chain) < 3:
            return (certificate_id(leaf),)
        verified = self._connection.get_verified_chain(as_cryptography=True) or [leaf]
        return tuple(map(certificate_id, verified[:-1]))

    def _authentication(self, key: str) -> str:
        """A chain cannot make a classical key weaker, so only that of a post-quantum key is looked at."""
        own = signed_with(key)
        if not self.complete or strength(own) == 0:
            return own
        chain = self._connection.get_verified_chain(as_cryptography=True)
        return authentication(chain) if chain else "none"

    def feed(self, ciphertext: memoryview | bytes | bytearray) -> None:
        if not self.complete:
            self.bytes_in += len(ciphertext)
            if self._server_side and not self._started:
                self._started = time.perf_counter()
        self._starved = False
        if len(self._unfed):  # before it was read, more has come
            self._give(self._unfed)
        view, size = memoryview(ciphertext), FEED_BYTES if self.complete else len(ciphertext)
        self._unfed = view[size:]
        self._give(view[:size])

    def _give(self, piece: memoryview) -> None:
        """To OpenSSL."""
        if _lib.BIO_write(self._connection._into_ssl, _ffi.from_buffer(piece), len(piece)) != len(piece):
            raise MemoryError("no memory for what has come")

    def feed_eof(self) -> None:
        self._starved = False
        self._connection.bio_shutdown()

    def take(self) -> list[bytes | bytearray]:
        self._collect()
        parts, self._outgoing = self._outgoing, []
        return parts

    def _collect(self) -> None:
        """Take from OpenSSL what it has written."""
        outgoing = self._connection._from_ssl
        if (size := self._waiting(outgoing)) > 0:
            part = bytearray(size)
            _lib.BIO_read(outgoing, _ffi.from_buffer(part), size)
            self._outgoing.append(part)
            if not self.complete:
                self.bytes_out += size

    def _waiting(self, bio: Any) -> int:
        """The number of bytes in a memory BIO."""
        return int(_lib.BIO_get_mem_data(bio, self._pointer))

    def read(self) -> bytes | None:
        """At most READ_BYTES of plaintext."""
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
        """Whole records until the room is full or none is left; an error is kept until the plaintext is read."""
        connection, filled = self._connection, 0
        while filled < READ_BYTES:
            size = _lib.SSL_read(connection._ssl, room + filled, READ_BYTES - filled)
            if size > 0:
                filled += size
            elif _lib.SSL_get_error(connection._ssl, size) != _lib.SSL_ERROR_WANT_READ:
                self._failed = self._error_of(size)
                break
            elif len(self._unfed):
                piece, self._unfed = self._unfed[:FEED_BYTES], self._unfed[FEED_BYTES:]
                self._give(piece)
            else:
                self._starved = True
                break
        return filled

    def _error_of(self, result: int) -> SSL.Error:
        try:
            self._connection._raise_ssl_error(self._connection._ssl, result)
        except SSL.Error as error:
            return error.with_traceback(None)  # which would hold this object, and so the link, until a full collection
        raise AssertionError("unreachable")

    def write(self, plaintext: memoryview | bytes | bytearray) -> None:
        connection, data, size, start = self._connection, _ffi.from_buffer(plaintext), len(plaintext), 0
        while start < size:
            written = _lib.SSL_write(connection._ssl, data + start, min(size - start, WRITE_BYTES))
            if written <= 0:
                error = self._error_of(written)
                raise LinkError(f"cannot encrypt: {text_of(error)}") from error
            start += written
            self._collect()

    def close(self) -> None:
        try:
            self._connection.shutdown()
        except SSL.Error:
            return

    def _failure(self, error: SSL.Error) -> HandshakeFailed:
        """Which side refused, and why: the reason if it was this one, the alert if it was the peer."""
        text = text_of(error)
        if "alert" in text:
            alert = text.split("alert", 1)[1].strip()
            return HandshakeFailed("alert_received", f"the peer refused with the alert {alert!r}", alert=alert)
        if "certificate verify failed" in text:
            code = _lib.SSL_get_verify_result(self._connection._ssl)
            detail = _ffi.string(_lib.X509_verify_cert_error_string(code)).decode()
            reason = _VERIFY_REASONS.get(code, "certificate_invalid")
            return HandshakeFailed(reason, f"peer's certificate: {detail}{self._more(reason)}")
        if isinstance(error, SSL.SysCallError) or not text:
            return HandshakeFailed("disconnected", "the peer closed the connection during the handshake")
        reason = next((label for part, label in _ERROR_REASONS if part in text), "tls_error")
        return HandshakeFailed(reason, f"TLS: {text}")

    def _more(self, reason: str) -> str:
        """What was asked for, and what was there."""
        wanted = reason in ("host_mismatch", "unknown_ca")
        chain = self._connection.get_peer_cert_chain(as_cryptography=True) if wanted else None
        if not chain:
            return ""
        if reason == "host_mismatch":
            return f": asked for {self._host}, it is for {', '.join(hosts(chain[0])) or 'no host'}"
        issuer = chain[-1].issuer.rfc4514_string()
        return (
            f": what was sent leads to {issuer}, which is not in our ca file; or the peer leaves out certificates above"
        )


def text_of(error: SSL.Error) -> str:
    """OpenSSL's own words, innermost last."""
    if error.args and isinstance(error.args[0], list):
        return "; ".join(entry[2] for entry in error.args[0] if entry[2])
    return " ".join(str(part) for part in error.args)
