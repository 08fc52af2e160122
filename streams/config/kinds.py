"""Kinds of values in configurations, as types: each names a check that toml.py runs on every such value.

A check raises ValueError with what is wrong and what to write instead. Checks read no files: the reader of the
configuration opens a path that is marked `readable`. Logs and pages show values of the kinds marked `shown`, so these
cannot come from a file, which may be secret.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterable
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from streams.addresses import split_address

TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}")
STREAM = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}")
HOST = re.compile(r"[a-zA-Z0-9_]([a-zA-Z0-9._-]{0,251}[a-zA-Z0-9_])?")
STREAM_RULE = "use at most 128 of a-z, 0-9, '.', '_', '-', a letter or digit first"


def checked(check: Callable[[str], None]) -> Meta:
    """Marks a string that must pass a check, and that may be secret."""
    return Meta(extra={"check": check})


def shown(check: Callable[[str], None] | None = None, values: Callable[[], Iterable[str]] | None = None) -> Meta:
    """Marks a string that logs and pages show, and the check that it must pass, if any; `values`: the few there are."""
    given = {"check": check, "values": values}
    return Meta(extra={"shown": True} | {name: each for name, each in given.items() if each is not None})


def readable(remedy: str) -> Meta:
    """Marks the path of a file that must exist; `remedy` says how to create it."""
    return Meta(extra={"remedy": remedy})


def secret(remedy: str) -> Meta:
    """Marks the same of a file that nobody but the program's user should read."""
    return Meta(extra={"remedy": remedy, "secret": True})


def check_address(address: str) -> None:
    """An address to connect to: host and port are required."""
    host, port = split_address(address)
    if not host or not port:
        raise ValueError(f"{address!r} needs a host and a port of at least 1, as in 'logs.example.net:7443'")


def check_listen_address(address: str) -> None:
    """An address to listen on: the host may be left out, and port 0 lets the system choose."""
    split_address(address)


def check_mode(name: str) -> None:
    """A named security mode."""
    from streams.security.modes import MODES

    if name not in MODES:
        raise ValueError(f"unknown mode {name!r}; the modes are: {', '.join(MODES)}")


def mode_names() -> Iterable[str]:
    """All security modes."""
    from streams.security.modes import MODES

    return MODES


def check_topic(name: str) -> None:
    """A topic name that Kafka accepts."""
    if not TOPIC.fullmatch(name) or name in (".", ".."):
        raise ValueError(
            f"{name!r} is not a valid Kafka topic name; use at most 249 of a-z, A-Z, 0-9, '.', '_' and '-'"
        )


def check_topic_pattern(pattern: str) -> None:
    """A topic name in which {stream} stands for the stream's name."""
    check_topic(pattern.replace("{stream}", "stream"))


def check_day(text: str) -> None:
    """A day, as 2027-01-31."""
    try:
        right = datetime.date.fromisoformat(text).isoformat() == text
    except ValueError:
        right = False
    if not right:
        raise ValueError(f'{text!r} is not a day; write it as "2027-01-31"')


def check_not_empty(text: str) -> None:
    """A string with something other than white space in it."""
    if not text.strip():
        raise ValueError("is empty; write a value, or leave the key out if it has a default")


def check_network(text: str) -> None:
    """A network of addresses, or one address."""
    try:
        ip_network(text)
    except ValueError as error:
        raise ValueError(
            f"{text!r} is no network: {error}; write one as in '10.1.0.0/16' or '2001:db8::/48'"
        ) from error


def check_request_host(name: str) -> None:
    """A name of a host, as in the `Host` of a request but without a port."""
    try:
        ip_address(name)
    except ValueError as error:
        if HOST.fullmatch(name):
            return
        raise ValueError(
            f"{name!r} is no name of a host; write one as in 'logs.example.net', without a port"
        ) from error


Address = Annotated[str, shown(check_address)]
Network = Annotated[str, shown(check_network)]
ListenAddress = Annotated[str, shown(check_listen_address)]
ModeName = Annotated[str, shown(check_mode, mode_names)]
TopicName = Annotated[str, shown(check_topic)]
Day = Annotated[str, shown(check_day)]
TopicPattern = Annotated[str, shown(check_topic_pattern)]
HostName = Annotated[str, shown(check_not_empty)]
RequestHost = Annotated[str, shown(check_request_host)]
Pattern = Annotated[str, checked(check_not_empty)]
RulePattern = Annotated[str, shown(check_not_empty)]
"""In rules of a receiver, which `validate` prints."""

Glob = Annotated[str, Meta(extra={"path": True})]
"""A shell pattern of paths; a relative pattern starts in the directory of the configuration."""

CertificateFile = Annotated[Path, readable("create it with `logfwd pki issue`")]
KeyFile = Annotated[Path, secret("create it with `logfwd pki issue`")]
DelegatedFile = Annotated[Path, secret("create it with `logfwd pki delegate`")]
AuthorityFile = Annotated[Path, readable("create it with `logfwd pki init`, or copy the existing one")]
StoredKeyFile = Annotated[Path, readable("create it with `logfwd pki pdk`, and copy it here")]
GrantKeyFile = Annotated[Path, secret("create it with `logfwd pki init`; all receivers of a cluster share one")]
CrlFile = Annotated[Path, readable("the authority makes it; ours by `logfwd pki revoke`")]
PasswordFile = Annotated[Path, secret("write the password into it")]
