"""What receives the requests of clients, for as long as the forwarder runs; imported only when a stream needs it.

Listeners outlive pipelines: a reload or a failed stream does not close them, and at the end of the forwarder they are
the first to stop, so that nothing new comes in, and the last to end, so that every client gets its answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from logfwd.sources.front import Front
from logfwd.sources.http.settings import HttpSource, Served

if TYPE_CHECKING:
    from logfwd.sources.http.server import HttpServer

__all__ = ["Listeners", "Served"]


def check(sources: Iterable[object]) -> None:
    """Raise ConfigError for a listener among these [source] tables whose files cannot be used."""
    for source in sources:
        if isinstance(source, HttpSource) and source.tls is not None:
            from logfwd.sources.http.server import party_of

            party_of(source.terms)


class Listeners:
    """All listeners of one forwarder.

    `count` is called with stream and status code of each answer; `count_invalid` says how many records of a block are
    invalid (its bytes, the ends of its records if not newlines, their greatest size).
    """

    def __init__(
        self,
        front: Front,
        count: Callable[[str, str], None],
        count_invalid: Callable[[bytes, Sequence[int] | None, int], int],
    ) -> None:
        self._front, self._count, self._count_invalid = front, count, count_invalid
        self.http: HttpServer | None = None

    async def serve(self, streams: Sequence[Served]) -> None:
        """Serve these streams from now on, and no others."""
        if streams and self.http is None:
            from logfwd.sources.http.server import HttpServer

            self.http = HttpServer(self._front, self._count, self._count_invalid)
        if self.http is not None:
            await self.http.serve(streams)

    def troubles(self) -> Mapping[str, str]:
        """Why a listener does not work, by its address."""
        return {} if self.http is None else self.http.troubles()

    def stop(self) -> None:
        """Take nothing more; requests that were handed over are still answered."""
        if self.http is not None:
            self.http.stop()

    async def close(self) -> None:
        """End all connections; every pipeline must have ended before."""
        if self.http is not None:
            await self.http.close()
