"""How many files the process's limit of descriptors leaves for each stream that follows files; decides, does no I/O."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from logfwd.config import ForwarderConfig
from logfwd.sources.http.settings import HttpSource
from logfwd.sources.settings import FileSource
from logfwd.sources.syslog.settings import SyslogSource
from streams.errors import ConfigError, Problem

REMEDY = "raise the limit (ulimit -Hn, LimitNOFILE= of systemd)"

OWN_DESCRIPTORS = 64
"""The program itself, and those who ask its admin address."""
SPOOL_DESCRIPTORS, LINK_DESCRIPTORS = 12, 2
"""Of an original stream: its spool, and what looks for files. Of every stream: its link, and the next one."""
LEAST_FILES = 4
"""Of each stream that follows files, if the limit is so low that nothing else gets what it asks for."""

LEAST_OWN, LEAST_SPOOL, LEAST_LINK, LEAST_ADDRESS, LEAST_FILE = 20, 6, 1, 2, 1
"""Without these nothing is read: of the program, an original stream, any stream, an address that clients use (with one
client), and a stream that follows files."""


class Share(NamedTuple):
    """What each stream that follows files may hold open, at most; the limit at which all get what they ask for; and the
    one below which nothing works."""

    files: int
    wanted_limit: int
    least_limit: int


def share(config: ForwarderConfig, limit: int) -> Share:
    """Divide a limit: first everything else has its part, then streams that follow files have equal ones."""
    sources = [stream.source for stream in config.streams if stream.source is not None]
    following = [source.max_open_files for source in sources if isinstance(source, FileSource)]
    connections = {source.address: source.max_connections for source in sources if isinstance(source, HttpSource)}
    for syslog in (source for source in sources if isinstance(source, SyslogSource)):
        connections |= {
            address: 1 if transport in ("udp", "unix") else syslog.max_connections
            for transport, address, _ in syslog.addresses()
        }
    others = OWN_DESCRIPTORS + len(sources) * SPOOL_DESCRIPTORS + len(config.streams) * LINK_DESCRIPTORS
    others += sum(connections.values())
    wanted_limit = others + sum(following)
    least = LEAST_OWN + len(sources) * LEAST_SPOOL + len(config.streams) * LEAST_LINK
    least += len(connections) * LEAST_ADDRESS + len(following) * LEAST_FILE
    if not following or limit >= wanted_limit:
        return Share(max(following, default=0), wanted_limit, least)
    floor = min(LEAST_FILES, LEAST_FILE + max(limit - least, 0) // len(following))
    return Share(max((limit - others) // len(following), floor), wanted_limit, least)


def check(config: ForwarderConfig, path: Path, limit: int) -> None:
    """ConfigError if a process with this limit of open files could not do what the file at `path` says."""
    least = share(config, limit).least_limit
    if limit < least:
        needs = f"its streams need at least {least} open files, and this process may have {limit}; {REMEDY}"
        raise ConfigError([Problem(path, "", needs)])
