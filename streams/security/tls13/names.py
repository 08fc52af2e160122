"""Code points of TLS 1.3 that this stack knows (RFC 8446 appendix B, IANA's registries)."""

from __future__ import annotations

import enum

SSL3, TLS12, TLS13 = 0x0300, 0x0303, 0x0304
"""On the wire every TLS 1.3 message says 1.2; the real version is in supported_versions.

A hello that says SSL 3.0 or less is refused for that alone (appendix D.5).
"""

RETRY_RANDOM = bytes.fromhex("CF21AD74E59A6111BE1D8C021E65B891C2A211167ABB8C5E079E09E2C8A8339C")
"""SHA-256 of "HelloRetryRequest": the random that makes a ServerHello one (RFC 8446 section 4.1.3)."""

DOWNGRADE_SENTINELS = (b"DOWNGRD\x01", b"DOWNGRD\x00")


class ContentType(enum.IntEnum):
    """The kinds of records (section 5.1)."""

    CHANGE_CIPHER_SPEC = 20
    ALERT = 21
    HANDSHAKE = 22
    APPLICATION_DATA = 23


class HandshakeType(enum.IntEnum):
    """Handshake messages (section 4)."""

    CLIENT_HELLO = 1
    SERVER_HELLO = 2
    NEW_SESSION_TICKET = 4
    ENCRYPTED_EXTENSIONS = 8
    CERTIFICATE = 11
    CERTIFICATE_REQUEST = 13
    CERTIFICATE_VERIFY = 15
    FINISHED = 20
    KEY_UPDATE = 24
    KEM_ENCAPSULATION = 30
    MESSAGE_HASH = 254


class Extension(enum.IntEnum):
    """Extensions that this stack sends, reads, or must know the place of (section 4.2)."""

    SERVER_NAME = 0
    MAX_FRAGMENT_LENGTH = 1
    STATUS_REQUEST = 5
    SUPPORTED_GROUPS = 10
    SIGNATURE_ALGORITHMS = 13
    ALPN = 16
    SIGNED_CERTIFICATE_TIMESTAMP = 18
    PADDING = 21
    DELEGATED_CREDENTIAL = 34
    PRE_SHARED_KEY = 41
    EARLY_DATA = 42
    SUPPORTED_VERSIONS = 43
    COOKIE = 44
    PSK_KEY_EXCHANGE_MODES = 45
    CERTIFICATE_AUTHORITIES = 47
    OID_FILTERS = 48
    POST_HANDSHAKE_AUTH = 49
    SIGNATURE_ALGORITHMS_CERT = 50
    KEY_SHARE = 51
    STORED_AUTH_KEY = 0xFF4B
    EARLY_AUTH = 0xFF4C


def message_name(kind: int) -> str:
    """A handshake message's name for people; an unassigned one by its number."""
    try:
        return HandshakeType(kind).name.lower()
    except ValueError:
        return f"handshake message {kind}"
