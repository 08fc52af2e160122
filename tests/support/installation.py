"""A forwarder and a receiver in one event loop, over real sockets, real TLS and a real sink."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
from structlog.typing import EventDict

from logfwd.config import ForwarderConfig
from logfwd.definition import BatchLimits, Stream
from logfwd.forwarder import Forwarder
from logfwd.sources.settings import FileSource
from logreceiver.config import Allow, Listener, ReceiverConfig
from logreceiver.service import Service
from logreceiver.sinks.log.sink import read_records
from logreceiver.sinks.settings import LogSink
from streams.config.sections import Delegated, MlDsa, MlKem, Previous, Tls
from streams.security.endpoint import Credentials, MlKemFiles
from streams.security.modes import MODES
from tests.support.patience import PATIENCE_SECONDS
from tests.support.tls import Parties

Events = list[EventDict]
EVERYTHING = ("hybrid", "classical", "classical-tls12", "hybrid-preferred", "hybrid-p256", "pq-auth")
"""What one listener can serve."""


class Installation:
    """Builds configs for one directory; tests change what they are about."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.parties = Parties(directory / "pki")
        self.source = directory / "http.log"
        self.source.touch()

    def receiver_config(
        self,
        *,
        modes: tuple[str, ...] = ("hybrid",),
        streams: tuple[str, ...] = ("*",),
        address: str = "localhost:0",
        credentials: Credentials | None = None,
    ) -> ReceiverConfig:
        tls = credentials or self.parties.receiver
        return ReceiverConfig(
            tls=_section(tls),
            grant_key_file=self.directory / "pki" / "grant.key",
            listener=(Listener(address=address, modes=modes),),
            allow=(Allow(identity="spiffe://test/*", streams=streams, modes=tuple(MODES)),),
            sink=LogSink(directory=self.directory / "log"),
            admin=None,
            stop_grace_seconds=1.0,
        )

    def stream(self, **changes: object) -> Stream:
        stream = Stream(
            name="http",
            source=FileSource(paths=(str(self.source),), scan_seconds=0.05),
            batch=BatchLimits(linger_seconds=0.02),
        )
        return msgspec.structs.replace(stream, **changes)

    def forwarder_config(
        self, address: str, *streams: Stream, credentials: Credentials | None = None, server_name: str | None = None
    ) -> ForwarderConfig:
        tls = credentials or self.parties.forwarder
        return ForwarderConfig(
            state_dir=self.directory / "state",
            tls=_section(tls),
            receivers=(address,),
            server_name=server_name,
            admin=None,
            streams=streams or (self.stream(),),
            stop_grace_seconds=1.0,
        )

    def append(self, *lines: str) -> None:
        with self.source.open("a") as out:
            out.write("".join(f"{line}\n" for line in lines))

    def stored(self, topic: str = "http") -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            return [bytes(record.value or b"").decode() for record in read_records(self.directory / "log", topic)]
        return []


def _section(credentials: Credentials) -> Tls:
    mldsa, mlkem, delegated = credentials.mldsa, credentials.mlkem, credentials.delegated
    return Tls(
        certificate=credentials.certificate,
        key=credentials.key,
        ca=credentials.ca,
        mldsa=None if mldsa is None else MlDsa(certificate=mldsa.certificate, key=mldsa.key, ca=mldsa.ca),
        mlkem=None if mlkem is None else _mlkem(mlkem),
        delegated=None if delegated is None else Delegated(**msgspec.structs.asdict(delegated)),
        accept_delegated=credentials.accept_delegated,
    )


def _mlkem(files: MlKemFiles) -> MlKem:
    previous = tuple(Previous(certificate=each.certificate, key=each.key) for each in files.previous)
    return MlKem(
        certificate=files.certificate,
        key=files.key,
        ca=files.ca,
        stored_keys=files.stored_keys,
        previous=previous,
    )


@contextlib.asynccontextmanager
async def running(receiver: ReceiverConfig) -> AsyncIterator[Service]:
    async with Service(receiver) as service:
        yield service


@contextlib.asynccontextmanager
async def forwarding(config: ForwarderConfig) -> AsyncIterator[Forwarder]:
    async with Forwarder(config) as forwarder:
        yield forwarder


async def eventually(condition: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until something is true, or fail."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


def acknowledged(forwarder: Forwarder, stream: str = "http") -> int:
    """Records of a stream that the forwarder knows to be stored."""
    return sum(row["records"]["acknowledged"] for row in forwarder.describe() if row["stream"] == stream)


def lines(count: int, start: int = 0) -> list[str]:
    return [
        json.dumps({"n": number, "path": f"/{number % 7}"}, separators=(",", ":"))
        for number in range(start, start + count)
    ]


def found(events: Events, event: str) -> Events:
    return [entry for entry in events if entry["event"] == event]
