"""Files with secrets that others on the host can open: keys, passwords, tokens. Said, never refused.

A group may read them: that is how containers are given secrets, and how several programs share one. What cannot be
looked at is left to whoever loads it.
"""

from __future__ import annotations

import os
import stat
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import structlog

from streams.config.toml import without_meta

REMEDY = "chmod 0600 it, and make another secret if somebody may have read this one"

log = structlog.get_logger("config")


class Exposed(NamedTuple):
    """A secret's file, and who can do what to it."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}; {REMEDY}"


def exposed(*configs: msgspec.Struct) -> list[Exposed]:
    """The files with secrets that others can open, of those that the configurations name."""
    paths = dict.fromkeys(path for config in configs for path in _secrets(config, type(config), secret=False))
    return [Exposed(path, reason) for path in paths if (reason := _reason(path))]


def tell_of_secrets(*configs: msgspec.Struct) -> None:
    """Log them."""
    for path, reason in exposed(*configs):
        log.warning("secret open to others", path=str(path), reason=reason, remedy=REMEDY)


def _reason(path: Path) -> str:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return ""
    if not stat.S_ISREG(mode):  # a pipe, or what a test holds in memory
        return ""
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others can write it (mode {stat.S_IMODE(mode):04o})"
    return f"every user can read it (mode {stat.S_IMODE(mode):04o})" if mode & stat.S_IROTH else ""


def _secrets(value: object, kind: Any, *, secret: bool) -> Iterator[Path]:
    kind, meta = without_meta(kind)
    secret = secret or (meta is not None and "secret" in (meta.extra or {}))
    if isinstance(value, msgspec.Struct):
        for field in msgspec.structs.fields(value):
            yield from _secrets(getattr(value, field.name), field.type, secret=False)
    elif isinstance(value, tuple):
        for each in value:
            yield from _secrets(each, (typing.get_args(kind) or (Any,))[0], secret=secret)
    elif isinstance(value, Path):
        kinds = typing.get_args(kind) or (kind,)
        if secret or any("secret" in (meta.extra or {}) for meta in map(_meta, kinds) if meta is not None):
            yield value


def _meta(kind: Any) -> Any:
    return without_meta(kind)[1]
