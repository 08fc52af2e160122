"""Alerts (RFC 8446 section 6), and the exception that carries one to the peer."""

from __future__ import annotations

import enum


class Alert(enum.IntEnum):
    """Alert descriptions. The peer learns nothing else about why a handshake failed."""

    CLOSE_NOTIFY = 0
    UNEXPECTED_MESSAGE = 10
    BAD_RECORD_MAC = 20
    RECORD_OVERFLOW = 22
    HANDSHAKE_FAILURE = 40
    BAD_CERTIFICATE = 42
    UNSUPPORTED_CERTIFICATE = 43
    CERTIFICATE_REVOKED = 44
    CERTIFICATE_EXPIRED = 45
    CERTIFICATE_UNKNOWN = 46
    ILLEGAL_PARAMETER = 47
    UNKNOWN_CA = 48
    ACCESS_DENIED = 49
    DECODE_ERROR = 50
    DECRYPT_ERROR = 51
    PROTOCOL_VERSION = 70
    INSUFFICIENT_SECURITY = 71
    INTERNAL_ERROR = 80
    INAPPROPRIATE_FALLBACK = 86
    USER_CANCELED = 90
    MISSING_EXTENSION = 109
    UNSUPPORTED_EXTENSION = 110
    UNRECOGNIZED_NAME = 112
    BAD_CERTIFICATE_STATUS_RESPONSE = 113
    UNKNOWN_PSK_IDENTITY = 115
    CERTIFICATE_REQUIRED = 116
    NO_APPLICATION_PROTOCOL = 120


WARNING, FATAL = 1, 2


def alert_name(code: int) -> str:
    """An alert in words, as OpenSSL writes it: "unknown ca"; an unassigned one by its number."""
    try:
        return Alert(code).name.lower().replace("_", " ")
    except ValueError:
        return f"number {code}"


class Abort(Exception):
    """Control flow inside this package; the endpoint turns it into HandshakeFailed.

    We end the connection: `alert` goes to the peer; `reason` is a label fit for a metric; `text` is for our log.
    """

    def __init__(self, alert: Alert, text: str, reason: str = "tls_error") -> None:
        super().__init__(text)
        self.alert = alert
        self.text = text
        self.reason = reason


class PeerAlert(Exception):
    """Control flow as well: the peer has ended the connection with this alert."""

    def __init__(self, code: int) -> None:
        super().__init__(alert_name(code))
        self.code = code


def decode_error(text: str) -> Abort:
    return Abort(Alert.DECODE_ERROR, text)


def illegal(text: str) -> Abort:
    return Abort(Alert.ILLEGAL_PARAMETER, text)


def unexpected(text: str) -> Abort:
    return Abort(Alert.UNEXPECTED_MESSAGE, text)
