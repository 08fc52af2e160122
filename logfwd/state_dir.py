"""The forwarder's own directory: one process owns it at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import structlog

from streams.config.units import MIB
from streams.errors import ConfigError, Problem
from streams.files import open_own

log = structlog.get_logger("logfwd")

LEAST_FREE_BYTES = 8 * MIB
"""For a spool, its write-ahead log and its reserve."""


@contextlib.contextmanager
def lock(state_dir: Path) -> Iterator[None]:
    """Own a state directory, created if necessary; ConfigError while another process owns it."""
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        _narrow(state_dir)
        file = os.fdopen(open_own(state_dir / "lock", os.O_WRONLY), "wb")
        lacking = _lacking_bytes(state_dir)
    except OSError as error:
        reason = f"{error.filename or state_dir}: {error.strerror or error}"
        raise ConfigError([Problem(state_dir, "state_dir", f"cannot be used: {reason}")]) from error
    with file:
        if lacking > 0:
            needs = f"the first start needs {LEAST_FREE_BYTES / MIB:.0f} MiB free there, {lacking / MIB:.1f} MiB more"
            raise ConfigError([Problem(state_dir, "state_dir", f"is on a disk that is too full or too small: {needs}")])
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError([Problem(state_dir, "state_dir", "is in use by another logfwd process")]) from None
        yield


def unusable(state_dir: Path) -> str:
    """Why this user could not own it; empty if nothing speaks against that. Creates nothing."""
    there = next(each for each in (state_dir, *state_dir.parents) if each.exists())
    if not there.is_dir():
        return f"{there} is not a directory"
    return "" if os.access(there, os.W_OK | os.X_OK) else f"this user may not write into {there}"


def _narrow(state_dir: Path) -> None:
    """Where anybody may write, anybody could put other files in place of spools."""
    mode = state_dir.stat().st_mode
    if not mode & stat.S_IWOTH:
        return
    try:
        state_dir.chmod(stat.S_IMODE(mode) & ~stat.S_IWOTH)
    except OSError as error:
        remedy = "chmod o-w it, or let the forwarder's own user own it"
        log.warning("others may write state_dir", path=str(state_dir), reason=error.strerror, remedy=remedy)
    else:
        log.info("state_dir closed to other writers", path=str(state_dir))


def _lacking_bytes(state_dir: Path) -> int:
    """How much more the first spool needs; 0 if there is one: on a full disk it can still drain."""
    if any(state_dir.glob("*.spool")):
        return 0
    stat = os.statvfs(state_dir)
    return LEAST_FREE_BYTES - stat.f_bavail * stat.f_frsize
