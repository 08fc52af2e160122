"""Private keys in files that a program can use by itself: it never asks anybody for a password."""

from __future__ import annotations

from pathlib import Path

from streams.errors import ConfigError, Problem

_ENCRYPTED = (b"-----BEGIN ENCRYPTED PRIVATE KEY-----", b"Proc-Type: 4,ENCRYPTED")
"""PKCS #8, and the form that OpenSSL wrote before."""


def refuse_encrypted(path: Path, section: str) -> None:
    """Raise ConfigError for a key that needs a password. One that cannot be read is left to whoever loads it."""
    try:
        data = path.read_bytes()
    except OSError:
        return
    if any(mark in data for mark in _ENCRYPTED):
        text = "is encrypted, and nobody can be asked for its password; decrypt it: openssl pkey -in FILE -out FILE"
        raise ConfigError([Problem(path, f"{section}.key", text)])
