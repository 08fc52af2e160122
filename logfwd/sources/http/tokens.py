"""Bearer tokens from a file: one in each line; blank lines and lines that begin with # mean nothing."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import structlog

log = structlog.get_logger("logfwd.sources.http")


class Tokens:
    """The tokens of one stream. The file is read again when it changes, so that tokens can be replaced at any time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, ...] = ()
        self._known: frozenset[bytes] = frozenset()

    def client(self, token: str) -> str | None:
        """A name for the client that has this token; None if it is not one of ours."""
        self._read_again()
        hashed = hashlib.sha256(token.encode()).digest()  # compared by hash: the time it takes gives nothing away
        return f"token:{hashed.hex()}" if hashed in self._known else None

    def _read_again(self) -> None:
        try:
            stat = os.stat(self._path)
            stamp = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            if stamp == self._stamp:
                return
            lines = self._path.read_bytes().decode("utf-8", "replace").splitlines()
        except OSError as error:
            if self._stamp:
                log.error("token file unreadable", path=str(self._path), reason=str(error), remedy="restore the file")
            self._stamp, self._known = (), frozenset()
            return
        tokens = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        self._known = frozenset(hashlib.sha256(token.encode()).digest() for token in tokens)
        self._stamp = stamp
