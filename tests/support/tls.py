"""A private authority and leaves for tests, and a listener that answers every link."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from streams.errors import ConfigError, HandshakeFailed
from streams.security import pki, stacks, stored_keys
from streams.security.connecting import connect
from streams.security.endpoint import (
    Credentials,
    DelegatedFiles,
    DelegatedKind,
    Endpoint,
    Files,
    MlDsaFiles,
    MlKemFiles,
)
from streams.security.listener import Listener, listen
from streams.security.modes import MODES
from streams.security.transport import Link
from tests.support.patience import PATIENCE_SECONDS

FORWARDER = "spiffe://test/forwarder"


@dataclass
class Parties:
    """Credentials of a receiver on localhost and of a forwarder: from one authority, and post-quantum from another."""

    directory: Path
    authority: pki.Authority = field(init=False)

    def __post_init__(self) -> None:
        self.authority = pki.create_authority(self.directory)
        self.mldsa = pki.create_authority(self.directory / "mldsa", kind="mldsa65")
        self.receiver = self._both("receiver", identities=["receiver"], hosts=["localhost", "127.0.0.1"])
        self.forwarder = self._both("forwarder", identities=[FORWARDER])
        assert self.forwarder.mlkem is not None
        kept = self.store_key("receiver-kem")
        self.forwarder = msgspec.structs.replace(
            self.forwarder, mlkem=msgspec.structs.replace(self.forwarder.mlkem, stored_keys=(kept,))
        )

    def store_key(self, leaf: str) -> Path:
        """The file with which forwarders are given the key of a leaf of the ML-DSA authority."""
        path = self.mldsa.directory / f"{leaf}.pdk"
        stored_keys.store(self.mldsa.directory / f"{leaf}.pem", path, force=True)
        return path

    def _both(self, name: str, **names: Any) -> Credentials:
        signing = issue(self.mldsa, name, kind="mldsa65", **names)
        kem = issue(self.mldsa, f"{name}-kem", kind="mlkem768", **names)
        return msgspec.structs.replace(
            self.leaf(name, **names),
            mldsa=MlDsaFiles(*msgspec.structs.astuple(signing)),
            mlkem=MlKemFiles(*msgspec.structs.astuple(kem)),
        )

    def leaf(self, name: str, *, identities: list[str], hosts: Iterable[str] = (), **options: object) -> Credentials:
        files = issue(self.authority, name, identities=identities, hosts=hosts, **options)
        return Credentials(files.certificate, files.key, files.ca)


def issue(
    authority: pki.Authority, name: str, *, identities: list[str], hosts: Iterable[str] = (), **options: object
) -> Files:
    """A leaf in the authority's directory."""
    files = authority.issue(
        identities=identities,
        hosts=list(hosts),
        out=authority.directory / name,
        **options,  # type: ignore[arg-type]
    )
    return Files(files.certificate, files.key, authority.directory / "ca.pem")


def shake_hands(near: Endpoint, far: Endpoint) -> None:
    """Carry flights until both ends are complete; raises the first HandshakeFailed, its alert delivered."""
    for _ in range(8):
        for one, other in ((near, far), (far, near)):
            try:
                if not one.complete:
                    one.handshake()
            finally:
                for part in one.take():
                    other.feed(part)
        if near.complete and far.complete:
            return
    raise AssertionError("the handshake does not end")


def problems(credentials: Credentials, *names: str, accepting: bool = False) -> list[str]:
    """What `validate` prints for these modes, without the paths."""
    try:
        stacks.check(credentials, [MODES[name] for name in names], accepting=accepting)
    except ConfigError as error:
        return [f"{problem.key}: {problem.message}" for problem in error.problems]
    return []


@dataclass
class Echo:
    """A listener that sends back what it gets, and remembers links and failures."""

    listener: Listener
    links: list[Link] = field(default_factory=list)
    failures: list[HandshakeFailed] = field(default_factory=list)

    async def failure(self) -> HandshakeFailed:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not self.failures:
                await asyncio.sleep(0.001)
        return self.failures[0]


@contextlib.asynccontextmanager
async def echo(
    credentials: Credentials, modes: Iterable[str], *, address: str = "localhost:0", **limits: Any
) -> AsyncIterator[Echo]:
    """Serve on a port of the system's choice."""
    server: Echo

    async def serve(link: Link) -> None:
        server.links.append(link)
        while data := await link.receive():
            link.write(data)
            await link.drain()
        await link.close()

    party = stacks.server([MODES[mode] for mode in modes], credentials)
    listener = await listen(
        address,
        party,
        serve,
        on_failure=lambda _, error: server.failures.append(error),
        **limits,
    )
    server = Echo(listener)
    try:
        yield server
    finally:
        await listener.close()


async def dial(server: Echo, credentials: Credentials, mode: str, *, server_name: str | None = None) -> Link:
    """Connect to it in a mode."""
    return await connect(
        server.listener.address,
        stacks.client(MODES[mode], credentials),
        server_name=server_name,
        connect_timeout=PATIENCE_SECONDS,
        handshake_timeout=PATIENCE_SECONDS,
    )


_NAMES: dict[str, dict[str, list[str]]] = {
    "receiver": {"identities": ["receiver"], "hosts": ["localhost"]},
    "forwarder": {"identities": [FORWARDER]},
}


def delegating(
    parties: Parties, role: str, *, kind: DelegatedKind = "mlkem768", shown_by: str = "", hours: float = 24
) -> DelegatedFiles:
    """The files of a role with a delegated key; the certificate's own key is not among them."""
    authority, signs = (parties.authority, "ec") if kind == "ec" else (parties.mldsa, "mldsa65")
    leaf = issue(authority, f"{role}-signs", kind=signs, delegates=True, force=True, **_NAMES[role])
    out = leaf.key.with_suffix(".dc")
    accepting = (shown_by or role) == "receiver"
    stacks.delegate(leaf.certificate, leaf.key, out, kind=kind, accepting=accepting, hours=hours, force=True)
    return DelegatedFiles(leaf.certificate, out, leaf.ca, kind=kind)
