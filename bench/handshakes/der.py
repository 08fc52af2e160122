"""As much of DER as it takes to find the public key in a certificate, or to put another one there."""

from __future__ import annotations

SEQUENCE, BIT_STRING = 0x30, 0x03
KEY_IN_TBS = 6
"""Version, serial number, signature, issuer, validity, subject, then the key (RFC 5280 section 4.1)."""


def key_bits(certificate: bytes) -> bytes:
    """The public key in a certificate as it stands there: raw, an uncompressed point, an RSAPublicKey."""
    key = parts(parts(certificate)[0])[KEY_IN_TBS]
    return _content(parts(key)[1])[1:]


def encode(tag: int, content: bytes) -> bytes:
    """A DER value."""
    size = len(content)
    length = size.to_bytes((size.bit_length() + 7) // 8 or 1)
    return bytes((tag,)) + (length if size < 0x80 else bytes((0x80 | len(length),)) + length) + content


def parts(der: bytes) -> list[bytes]:
    """The values within a DER value, each whole."""
    content, found = _content(der), []
    while content:
        size = _header(content)[1]
        found.append(content[:size])
        content = content[size:]
    return found


def _content(der: bytes) -> bytes:
    start, end = _header(der)
    return der[start:end]


def _header(der: bytes) -> tuple[int, int]:
    """Where the content of the first value begins, and where it ends."""
    if der[1] < 0x80:
        return 2, 2 + der[1]
    start = 2 + (der[1] & 0x7F)
    return start, start + int.from_bytes(der[2:start])
