"""The forwarder's own directory: one process owns it at a time."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from streams.errors import ConfigError, Problem


@contextlib.contextmanager
def lock(state_dir: Path) -> Iterator[None]:
    """Own a state directory, created if necessary; ConfigError while another process owns it."""
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = (state_dir / "lock").open("wb")
    except OSError as error:
        raise ConfigError([Problem(state_dir, "state_dir", f"cannot be used: {error}")]) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError([Problem(state_dir, "state_dir", "is in use by another logfwd process")]) from None
        yield
