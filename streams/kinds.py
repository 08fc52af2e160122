"""Kinds of values in configurations, as types: each names its check, which toml.py runs on every such value.

A check raises ValueError with what is wrong and what to write instead. It reads no file; `readable` asks the reader to.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from streams.addresses import split_address

TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}")


def checked(check: Callable[[str], None]) -> Meta:
    """Marks a text that has to pass a check."""
    return Meta(extra={"check": check})


def readable(remedy: str) -> Meta:
    """Marks a path of a file that has to be there; `remedy` tells how it is made."""
    return Meta(extra={"remedy": remedy})


def check_address(address: str) -> None:
    """Somewhere to connect to: host and port must be there."""
    host, port = split_address(address)
    if not host or not port:
        raise ValueError(f"{address!r} needs a host and a port from 1 on, as in 'logs.example.net:7443'")


def check_listen_address(address: str) -> None:
    """Somewhere to listen: the host may be left out, and port 0 lets the system choose."""
    split_address(address)


def check_mode(name: str) -> None:
    """A named security mode."""
    from streams.security.modes import MODES

    if name not in MODES:
        raise ValueError(f"unknown mode {name!r}; the modes are: {', '.join(MODES)}")


def check_topic(name: str) -> None:
    """A name that Kafka takes for a topic."""
    if not TOPIC.fullmatch(name) or name in (".", ".."):
        raise ValueError(f"{name!r} is no Kafka topic; use a-z, A-Z, 0-9, '.', '_', '-', at most 249")


def check_topic_pattern(pattern: str) -> None:
    """A topic in which {stream} stands for the stream's name."""
    check_topic(pattern.replace("{stream}", "stream"))


def check_not_empty(text: str) -> None:
    """Something must be there."""
    if not text.strip():
        raise ValueError("is empty; write a value, or leave the key out if it has a default")


Address = Annotated[str, checked(check_address)]
ListenAddress = Annotated[str, checked(check_listen_address)]
ModeName = Annotated[str, checked(check_mode)]
TopicName = Annotated[str, checked(check_topic)]
TopicPattern = Annotated[str, checked(check_topic_pattern)]
HostName = Annotated[str, checked(check_not_empty)]
Pattern = Annotated[str, checked(check_not_empty)]

Glob = Annotated[str, Meta(extra={"path": True})]
"""A shell pattern of paths; a relative one starts at the directory of the configuration."""

CertificateFile = Annotated[Path, readable("make it with `logfwd pki issue`")]
KeyFile = Annotated[Path, readable("make it with `logfwd pki issue`")]
AuthorityFile = Annotated[Path, readable("make it with `logfwd pki init`, or copy the one that is there")]
GrantKeyFile = Annotated[Path, readable("make it with `logfwd pki init`; all receivers of a cluster share one")]
PasswordFile = Annotated[Path, readable("write the password into it")]
