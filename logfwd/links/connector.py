"""Makes links for streams: picks a receiver, shakes hands in the stream's mode, judges the result."""

from __future__ import annotations

import asyncio
import datetime
import random
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import structlog

from logfwd.config import ForwarderConfig
from logfwd.definition import Stream
from logfwd.links.sender import Connect
from logfwd.metrics import ForwarderMetrics
from streams.errors import ConfigError, HandshakeFailed, LinkError, PolicyViolation
from streams.security import handshakes, stacks
from streams.security.connecting import connect
from streams.security.endpoint import Party
from streams.security.explaining import explained
from streams.security.modes import Mode
from streams.security.transport import Link

CONNECT_TIMEOUT_SECONDS = 10.0
HANDSHAKE_TIMEOUT_SECONDS = 10.0
FILES_SECONDS = 10.0

_files = ThreadPoolExecutor(1, thread_name_prefix="certificates")
"""Reads the files of all streams: a disk that does not answer holds up new links, and nothing else."""

log = structlog.get_logger("logfwd")


class Connector:
    """Makes links as one config says; certificate files are read again for every link.

    While they hold the same bytes the party stays the same one: its keys are parsed, and it knows which of the
    receivers' chains it has verified.
    """

    def __init__(self, config: ForwarderConfig, metrics: ForwarderMetrics) -> None:
        self._config = config
        self._metrics = metrics
        self._parties: dict[str, tuple[bytes, Party]] = {}
        """By mode, with the digest of its files."""

    def of(self, stream: Stream) -> Connect:
        """How a stream makes its next link: to each receiver in turn, starting with a random one."""
        turns = count(random.randrange(1 << 16))  # noqa: S311
        receivers = self._receivers_of(stream)

        async def make_link() -> Link:
            return await self._connect(stream, receivers[next(turns) % len(receivers)])

        return make_link

    def receivers(self, stream: Stream) -> int:
        """How many receivers a stream has."""
        return len(self._receivers_of(stream))

    def _receivers_of(self, stream: Stream) -> tuple[str, ...]:
        return stream.receivers or self._config.receivers

    async def _connect(self, stream: Stream, receiver: str) -> Link:
        config = self._config
        (mode,) = stacks.named([stream.security], config.tls)
        try:
            async with asyncio.timeout(FILES_SECONDS):
                party = await asyncio.get_running_loop().run_in_executor(_files, self._party, mode)
        except ConfigError as error:
            raise LinkError(str(error)) from error  # the files may be mended while we run
        except TimeoutError as error:
            raise LinkError(f"the files of [{mode.section}] do not answer: look for a disk that hangs") from error
        self._metrics.own_certificate(party.expires, user=mode.section, delegated=party.delegated_until)
        stream_log = log.bind(stream=stream.name, mode=mode.name)
        try:
            link = await connect(
                receiver,
                party,
                server_name=stream.server_name or config.server_name,
                connect_timeout=CONNECT_TIMEOUT_SECONDS,
                handshake_timeout=HANDSHAKE_TIMEOUT_SECONDS,
                on_failure=lambda error: self._failed(stream, receiver, error),
            )
        except HandshakeFailed as error:
            why = explained(error, mode, receiver)
            handshakes.log_failed(stream_log.bind(receiver=receiver), why)
            raise why from error
        facts = link.facts
        self._metrics.observe_handshake(facts, stream=stream.name, mode=mode.name, role="forwarder")
        link_log = stream_log.bind(receiver=link.peer)
        handshakes.log_complete(link_log.bind(connect_milliseconds=round(facts.connect_seconds * 1e3, 3)), facts)
        try:
            handshakes.judge(mode, facts, self._metrics, link_log, stream=stream.name)
        except PolicyViolation:
            link.abort()
            raise
        return link

    def _failed(self, stream: Stream, receiver: str, error: HandshakeFailed) -> None:
        """A handshake failed at one of a receiver's addresses, and the next one is tried."""
        handshakes.log_failed(log.bind(stream=stream.name, mode=stream.security, receiver=receiver), error)
        self._metrics.failed_handshake(error.reason, role="forwarder", stream=stream.name, mode=stream.security)

    def _party(self, mode: Mode) -> Party:
        """ConfigError if the files cannot be used, or hold a delegated credential that has expired."""
        digest = stacks.digest_of_files(mode, self._config.tls)
        kept = self._parties.get(mode.name)
        if kept is not None and kept[0] == digest and not _expired(kept[1]):
            return kept[1]
        party = stacks.client(mode, self._config.tls)
        if digest:
            self._parties[mode.name] = digest, party
        return party


def _expired(party: Party) -> bool:
    return party.delegated_until is not None and party.delegated_until <= datetime.datetime.now(datetime.UTC)
