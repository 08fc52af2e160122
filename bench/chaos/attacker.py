"""A forwarder that says whatever it likes to a receiver: its links for floods.py."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from streams.errors import LinkError
from streams.security import stacks
from streams.security.connecting import connect
from streams.security.endpoint import Credentials, Files, Party
from streams.security.modes import MODES
from streams.security.tls13 import party as tls13
from streams.security.transport import Link
from streams.wire import codec
from streams.wire import messages as m
from streams.wire.framing import Deframer

MODE = "hybrid"
_numbers = count()
Run = Callable[["Target"], Coroutine[Any, Any, Counter[str]]]
"""One kind of abuse until the target says that it is over; returns how often its links ended in which way."""


@dataclass(frozen=True)
class Target:
    """A receiver, and the certificates for it."""

    name: str
    """Of the flood: each has identities of its own, so that none suffers for another."""
    address: str
    admin: str
    pki: Path
    until: float
    identities: int = 1

    def party(self, identity: int = 0) -> Party:
        return _party(*self._paths(identity))

    def own_party(self, identity: int = 0) -> Party:
        """The same by our own TLS, which takes longer, for records that OpenSSL would not send."""
        return tls13.client(MODES[MODE], Files(*self._paths(identity)))

    def _paths(self, identity: int) -> tuple[Path, Path, Path]:
        stem = self.pki / f"{self.name}-{identity}"
        return stem.with_suffix(".pem"), stem.with_suffix(".key"), self.pki / "ca.pem"

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self.until


@functools.cache
def _party(certificate: Path, key: Path, ca: Path) -> Party:
    """Loaded once: whoever only connects is to spend nothing else."""
    return stacks.client(MODES[MODE], Credentials(certificate, key, ca))


@dataclass
class Peer:
    """A link that says whatever it likes."""

    link: Link
    codes: Counter[str] = field(default_factory=Counter)
    producer_id: int = -1
    _wire: Deframer = field(default_factory=lambda: Deframer(m.MAX_FRAME_BYTES))

    def say(self, *messages: m.Message) -> None:
        self.link.write(b"".join(bytes(part) for message in messages for part in codec.encode(message)))

    async def hear(self, *kinds: type[m.Message]) -> m.Message | None:
        """The next message of these kinds; None at the end of the link."""
        while data := await self.link.receive():
            found = [codec.decode(frame) for frame in self._wire.feed(data)]
            for message in found:
                if isinstance(message, m.Nack | m.Error):
                    self.codes[message.code] += 1
                if isinstance(message, kinds):
                    return message
        return None

    async def drain(self) -> None:
        """Read what comes until the link ends."""
        with contextlib.suppress(LinkError):
            while await self.hear() is not None:
                pass


async def greet(target: Target, *, identity: int = 0, stream: str = "flood", party: Party | None = None) -> Peer:
    """A link that was welcomed; LinkError if it was not."""
    link = await connect(target.address, party or target.party(identity), server_name="localhost")
    peer, name = Peer(link), f"attacker-{os.getpid()}-{next(_numbers)}"
    peer.say(m.Hello(m.VERSION, name, name, stream, MODE))
    if await peer.hear(m.Welcome, m.Error) is None or peer.codes:
        raise LinkError(next(iter(peer.codes), "closed"))
    return peer


async def open_run(peer: Peer) -> None:
    peer.say(m.OpenRun(0))
    if isinstance(answer := await peer.hear(m.Run, m.Nack), m.Run):
        peer.producer_id = answer.producer_id
