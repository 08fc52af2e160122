"""How many files the process's limit of descriptors leaves for each stream that follows files; decides, does no I/O."""

from __future__ import annotations

from typing import NamedTuple

from logfwd.config import ForwarderConfig
from logfwd.sources.http.settings import HttpSource
from logfwd.sources.settings import FileSource
from logfwd.sources.syslog.settings import SyslogSource

OWN_DESCRIPTORS = 64
"""The program itself, and those who ask its admin address."""
SPOOL_DESCRIPTORS, LINK_DESCRIPTORS = 12, 2
"""Of an original stream: its spool, and what looks for files. Of every stream: its link, and the next one."""
LEAST_FILES = 4


class Share(NamedTuple):
    """What each stream that follows files may hold open, at most; and the limit at which all get what they ask for."""

    files: int
    wanted_limit: int


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
    if not following or limit >= wanted_limit:
        return Share(max(following, default=0), wanted_limit)
    return Share(max((limit - others) // len(following), LEAST_FILES), wanted_limit)
