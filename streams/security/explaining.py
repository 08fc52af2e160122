"""Says of a handshake that failed what was asked for and what was there; no I/O."""

from __future__ import annotations

from cryptography import x509

from streams.errors import HandshakeFailed
from streams.security.modes import Mode

NOTHING_SHARED = frozenset({"handshake failure", "protocol version", "insufficient security", "illegal parameter"})
"""Alerts of a peer that accepts nothing of what it was offered."""


def explained(error: HandshakeFailed, mode: Mode, address: str) -> HandshakeFailed:
    """The same error; names the mode and what it offers where the peer has accepted nothing of that."""
    wrong_mode = (error.alert or "").replace("_", " ") in NOTHING_SHARED or error.reason == "protocol_version"
    if not wrong_mode:
        return error
    offers = f"{mode.version} with {' or '.join(mode.groups)}"
    text = (
        f"{error}: it took nothing of what mode {mode.name} offers ({offers}); does a listener at {address} serve this "
        f"mode? `logfwd tls probe {address}` tells which it does"
    )
    other = HandshakeFailed(error.reason, text, alert=error.alert)
    other.seen = error.seen
    return other


def hosts(certificate: x509.Certificate) -> tuple[str, ...]:
    """The names and addresses of hosts that a certificate is for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    return (*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress)))
