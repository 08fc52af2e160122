"""What takes requests and messages of clients, for as long as the forwarder runs; servers are imported when needed.

Listeners outlive pipelines: a reload or a failed stream does not close them, and at the end of the forwarder they are
the first to stop, so that nothing new comes in, and the last to end, so that every client gets its answer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from logfwd.sources.front import Front
from logfwd.sources.http.settings import HttpSource, Served
from logfwd.sources.syslog import settings as syslog
from logfwd.sources.syslog.counts import Counters
from logfwd.sources.syslog.settings import SyslogSource
from logfwd.sources.terms import ListenerTls
from streams import tasks
from streams.program import favour_loop

if TYPE_CHECKING:
    from logfwd.sources.http.server import HttpServer, Observer
    from logfwd.sources.syslog.server import SyslogServer

__all__ = ["Counters", "Listeners", "Served"]

CERTIFICATE_CHECK_SECONDS = 5.0
"""Certificates are renewed by programs that do not tell us."""


def check(sources: Iterable[object]) -> None:
    """Raise ConfigError for a listener among these [source] tables whose files cannot be used."""
    for source in sources:
        if isinstance(source, HttpSource | SyslogSource) and source.tls is not None:
            from logfwd.sources.party import party_of

            party_of(source.tls, b"")


class Listeners:
    """All listeners of one forwarder.

    `count` is called with stream and status code of each answer; `count_invalid` says how many records of a block are
    invalid (its bytes, the ends of its records if not newlines, their greatest size); `syslog_counters` count what
    syslog listeners lose or refuse.
    """

    def __init__(
        self,
        front: Front,
        observer: Observer,
        count_invalid: Callable[[bytes, Sequence[int] | None, int], int],
        syslog_counters: Counters,
    ) -> None:
        self._front, self._observer, self._count_invalid = front, observer, count_invalid
        self._syslog_counters = syslog_counters
        self.http: HttpServer | None = None
        self.syslog: SyslogServer | None = None
        self._tls: list[ListenerTls] = []
        self._seen: Sequence[object] = ()
        """Of the files of certificates, when they were read last."""
        self._watching: asyncio.Task[None] | None = None

    async def serve(self, streams: Sequence[Served], syslog_streams: Sequence[syslog.Served] = ()) -> None:
        """Serve these streams from now on, and no others."""
        if streams and self.http is None:
            from logfwd.sources.http.server import HttpServer

            self.http = HttpServer(self._front, self._observer, self._count_invalid)
        if self.http is not None:
            await self.http.serve(streams)
        if syslog_streams and self.syslog is None:
            from logfwd.sources.syslog.server import SyslogServer

            self.syslog = SyslogServer(self._front, self._syslog_counters)
        if self.syslog is not None:
            await self.syslog.serve(syslog_streams)
        if streams or syslog_streams:
            favour_loop()
        files = [each.settings.tls for each in streams] + [each.settings.tls for each in syslog_streams]
        self._tls = [tls for tls in files if tls is not None]
        if self._tls and self._watching is None:
            self._seen = await asyncio.to_thread(_read, self._files)
            self._watching = tasks.forever("listeners' certificates", self._watch_certificates)

    async def _watch_certificates(self) -> None:
        """New clients are shown a certificate as soon as it is in its file."""
        while True:
            await asyncio.sleep(CERTIFICATE_CHECK_SECONDS)
            seen = await asyncio.to_thread(_read, self._files)  # there, as a disk may not answer
            if seen != self._seen:
                self._seen = seen
                for server in (self.http, self.syslog):
                    if server is not None:
                        server.read_files()

    @property
    def _files(self) -> list[Path]:
        return [path for tls in self._tls for path in (tls.certificate, tls.key, tls.ca) if path is not None]

    def troubles(self) -> Mapping[str, str]:
        """Why a listener does not work, by its address."""
        servers = [server for server in (self.http, self.syslog) if server is not None]
        return {part: reason for server in servers for part, reason in server.troubles().items()}

    async def stop(self) -> None:
        """Take nothing more; requests that were handed over are still answered."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        if self.http is not None:
            self.http.stop()
        if self.syslog is not None:
            await self.syslog.stop()

    async def close(self) -> None:
        """End the connections of clients that wait for an answer; every pipeline must have ended before."""
        if self.http is not None:
            await self.http.close()


def _read(paths: Iterable[Path]) -> Sequence[object]:
    """Which files there are and a hash of what they hold; empty while one of them is missing."""
    with contextlib.suppress(OSError):
        return [(path, hash(path.read_bytes())) for path in paths]
    return ()
