"""OpenSSL contexts: the modes, files and options of one side, shared by all its connections."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from cryptography import x509
from OpenSSL import SSL, crypto

from streams.errors import ConfigError, HandshakeFailed, Problem
from streams.files import append_secret
from streams.security import chains, pem
from streams.security.endpoint import ALPN, Files
from streams.security.modes import TLS12, TLS13, Mode
from streams.security.openssl.endpoint import text_of
from streams.security.openssl.groups import Settings, client_settings, listener_settings
from streams.security.private_keys import refuse_encrypted

_lib = SSL._lib  # type: ignore[attr-defined]
_VERSIONS = {TLS12: SSL.TLS1_2_VERSION, TLS13: SSL.TLS1_3_VERSION}
_TLS12_CIPHERS = b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384"
_TLS12_CIPHERS_OF_OTHERS = _TLS12_CIPHERS + b":ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384"
"""Their keys are of whatever kind their CA signed."""
_TLS13_CIPHERS = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
_MODE_NO_AUTO_CHAIN = 8
_MODE_ENABLE_PARTIAL_WRITE = 1
_MODE_RELEASE_BUFFERS = 16
"""Links that are silent then keep no buffers for records, 34 KB each."""
_MISMATCH = "key values mismatch"
"""What OpenSSL says of a key that is loaded after its certificate."""
_OTHER_KEY = "is not the key of the certificate; if its file has several, the first one counts"
UNKNOWN_ISSUER = (2, 18, 19, 20, 21)
"""X509_V_ERR_ codes (x509_vfy.h) of a chain that does not lead to a trusted root."""


def client_context(mode: Mode, files: Files, *, key_log: Path | None = None) -> SSL.Context:
    """A context that offers exactly one mode; raises ConfigError if the files cannot be used."""
    context = _context(client_settings(mode), key_log, accepting=False)
    _load(context, files)
    context.set_alpn_protos([ALPN])
    return context


def foreign_context(mode: Mode, ca: Path, files: Files | None = None, *, section: str = "tls") -> SSL.Context:
    """A client context for servers that are not ours (a Kafka cluster): no ALPN, a certificate only if given."""
    context = _context(client_settings(mode), None, accepting=False)
    context.set_cipher_list(_TLS12_CIPHERS_OF_OTHERS)
    if files is not None:
        _load(context, files)
    else:
        _load_file(context.load_verify_locations, f"{section}.ca", ca)
    return context


def unverified_context(mode: Mode) -> SSL.Context:
    """Offers one mode, shows no certificate and trusts nobody: for a look at a server, whose chain is not judged."""
    context = _context(client_settings(mode), None, accepting=False)
    context.set_cipher_list(_TLS12_CIPHERS_OF_OTHERS)
    context.set_alpn_protos([ALPN])
    return context


def server_context(modes: Iterable[Mode], *files: Files, key_log: Path | None = None) -> SSL.Context:
    """A context that serves several modes, best group first; raises ConfigError if the files cannot be used.

    It holds one certificate for each kind of key, trusts the CAs of all, and shows a client the certificate that fits
    the signature algorithms that the client offers. A foreign client that offers several (Node.js does) may trust the
    CA of one only: it gets that of the mode listed first. What each link was given is judged by its mode.
    """
    context = _context(listener_settings(modes), key_log, accepting=True)
    if len(files) > 1:
        context.set_options(SSL.OP_CIPHER_SERVER_PREFERENCE)
    for each in files:
        _load(context, each)
    context.set_alpn_select_callback(_select_alpn)
    return context


def foreign_server_context(
    modes: Iterable[Mode], section: str, certificate: Path, key: Path, ca: Path | None, alpn: bytes
) -> SSL.Context:
    """A context for clients that are not ours: `alpn` if they offer it; a certificate is asked for only with `ca`."""
    context = _context(listener_settings(modes), None, accepting=True)
    _load_leaf(context, section, certificate, key)
    if ca is not None:
        _load_file(context.load_verify_locations, f"{section}.ca", ca)
    else:
        context.set_verify(SSL.VERIFY_NONE)
    context.set_alpn_select_callback(functools.partial(_select_if_offered, alpn))
    return context


def check_files(files: Files) -> None:
    """Raise ConfigError for files that no link could use."""
    _load(SSL.Context(SSL.TLS_METHOD), files)


def verify_files(files: Files, *, accepting: bool) -> Iterator[Problem]:
    """Why OpenSSL at a peer would refuse our certificate; one that another CA has issued is left to the peers."""
    store = crypto.X509Store()
    store.load_locations(str(files.ca))
    _trust_what_is_given(store)
    _lib.X509_STORE_set_purpose(
        store._store, _lib.X509_PURPOSE_SSL_SERVER if accepting else _lib.X509_PURPOSE_SSL_CLIENT
    )
    certificates = x509.load_pem_x509_certificates(files.certificate.read_bytes())
    leaf, *others = [crypto.X509.from_cryptography(each) for each in certificates]
    try:
        crypto.X509StoreContext(store, leaf, others).verify_certificate()
    except crypto.X509StoreContextError as error:
        if error.errors[0] not in UNKNOWN_ISSUER:
            yield chains.refused(files, str(error))


def first_expiry(files: Iterable[Files]) -> datetime.datetime:
    """When the first of several certificates expires; raises ConfigError if one cannot be used."""
    return min(map(_expiry, files))


def _expiry(files: Files) -> datetime.datetime:
    context = SSL.Context(SSL.TLS_METHOD)
    _load_file(context.use_certificate_chain_file, f"{files.section}.certificate", files.certificate)
    return certificate_expires(context)


def certificate_expires(context: SSL.Context) -> datetime.datetime:
    """When the certificate that was last loaded into this context expires."""
    leaf = SSL.Connection(context).get_certificate(as_cryptography=True)
    assert leaf is not None, "the context has loaded one"
    return leaf.not_valid_after_utc


def _select_if_offered(alpn: bytes, _: SSL.Connection, offered: list[bytes]) -> Any:
    return alpn if alpn in offered else SSL.NO_OVERLAPPING_PROTOCOLS


def _select_alpn(_: SSL.Connection, offered: list[bytes]) -> bytes:
    """An error here makes OpenSSL send the alert no_application_protocol (RFC 7301 section 3.2)."""
    if ALPN not in offered:
        raise HandshakeFailed("alpn", f"the peer does not speak {ALPN.decode()}")
    return ALPN


def _context(settings: Settings, key_log: Path | None, *, accepting: bool) -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(_VERSIONS[settings.min_version])
    context.set_max_proto_version(_VERSIONS[settings.max_version])
    context.set_cipher_list(_TLS12_CIPHERS)
    context.set_tls13_ciphersuites(_TLS13_CIPHERS)
    _set_list(_lib.SSL_CTX_set1_curves_list, context, settings.groups)
    _set_list(_lib.SSL_CTX_set1_sigalgs_list, context, settings.signature_algorithms)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
    if accepting:
        context.set_tlsext_servername_callback(_send_no_tickets)
    else:
        context.set_options(SSL.OP_NO_TICKET)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_mode(_MODE_NO_AUTO_CHAIN | _MODE_RELEASE_BUFFERS)
    context.clear_mode(_MODE_ENABLE_PARTIAL_WRITE)
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
    _trust_what_is_given(context.get_cert_store())
    if key_log is not None:
        append_secret(key_log, b"")  # a callback could not say that it is not to be used
        context.set_keylog_callback(functools.partial(_append_secret, key_log))
    return context


def _trust_what_is_given(store: crypto.X509Store | None) -> None:
    """A chain ends at whatever the CA's file holds, which may be an intermediate without its root."""
    assert store is not None
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)


def _send_no_tickets(connection: SSL.Connection) -> None:
    """Turn tickets off as late as that: before, it only has TLS 1.3 send tickets of another kind.

    OpenSSL gives up the tickets that it meant to send if this callback, which may choose by the server's name, turns
    them off. It asks at each ClientHello; if one is still to come (HelloRetryRequest), no group is agreed on yet.
    """
    if connection.get_group_name() is not None or connection.get_protocol_version_name() == TLS12:
        _lib.SSL_set_options(connection._ssl, SSL.OP_NO_TICKET)


def _set_list(setter: object, context: SSL.Context, names: str) -> None:
    if setter(context._context, names.encode()) != 1:  # type: ignore[operator]
        raise ValueError(f"this OpenSSL does not know all of {names!r}")


def _load(context: SSL.Context, files: Files) -> None:
    _load_leaf(context, files.section, files.certificate, files.key)
    _load_file(context.load_verify_locations, f"{files.section}.ca", files.ca)


def _load_leaf(context: SSL.Context, section: str, certificate: Path, key: Path) -> None:
    _load_file(context.use_certificate_chain_file, f"{section}.certificate", certificate)
    refuse_encrypted(key, section)
    _load_file(context.use_privatekey_file, f"{section}.key", key, pem.PRIVATE_KEY)
    try:
        context.check_privatekey()
    except SSL.Error as error:
        raise ConfigError([Problem(key, f"{section}.key", _OTHER_KEY)]) from error


def _load_file(load: Callable[[str], object], key: str, path: Path, label: str = pem.CERTIFICATE) -> None:
    try:
        load(str(path))
    except SSL.Error as error:
        words = text_of(error)
        text = f"cannot be used: {pem.fault(path, label) or words or 'not readable as PEM'}"
        raise ConfigError([Problem(path, key, _OTHER_KEY if _MISMATCH in words else text)]) from error


def _append_secret(path: Path, _: SSL.Connection, line: bytes) -> None:
    append_secret(path, line + b"\n")
