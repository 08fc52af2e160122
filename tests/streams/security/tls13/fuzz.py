"""Random inputs for our own TLS 1.3, for as long as one likes: `make fuzz MINUTES=60`.

An input is a handful of bytes that say what is done to a handshake; with a given seed they are the same every time. It
must end in typed errors, or with one side waiting. A finding is printed with its bytes, and `--input` repeats it.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import resource
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import TypeVar

from streams.errors import LinkError
from streams.security.tls13.alerts import Abort
from streams.security.tls13.endpoint import Tls13Endpoint as Endpoint
from streams.security.tls13.messages import MAX_BYTES
from streams.security.tls13.names import ContentType, HandshakeType
from streams.security.tls13.party import Tls13Party
from tests.streams.security.tls13.support import HOST, NOW, carry, connect
from tests.streams.security.tls13.tampering import outcome, replaced, spoil
from tests.streams.security.tls13.test_codec import PARSERS
from tests.streams.security.tls13.test_fuzz import FLOWS, _cut, _flip, _insert, _mend, sizes

T = TypeVar("T")

INPUT_BYTES = 64
LONGEST = max(MAX_BYTES.values()) + 4


class Draw:
    """Decisions from an input's bytes; zeros once they are used up."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def bytes(self, size: int) -> bytes:
        taken, self._data = self._data[:size], self._data[size:]
        return taken.ljust(size, b"\0")

    def number(self, below: int) -> int:
        return int.from_bytes(self.bytes(2)) % below

    def choice(self, options: Sequence[T]) -> T:
        return options[self.number(len(options))]


# -- what is done --------------------------------------------------------------------------------------------------


@cache
def _parties(flow: str) -> tuple[Tls13Party, Tls13Party]:
    """Both sides of a flow, so that chains are verified once."""
    sides = (end._side._settings for end in FLOWS[flow]())
    client, server = (Tls13Party(settings, NOW, accepting=bool(side)) for side, settings in enumerate(sides))
    return client, server


def _ends(flow: str) -> tuple[Endpoint, Endpoint]:
    client, server = _parties(flow)
    return client.endpoint(HOST), server.endpoint()


def _mutation(draw: Draw) -> Callable[[bytes], bytes]:
    at = draw.number(9000)
    return draw.choice(
        [
            partial(_flip, at, 1 + draw.number(255)),
            partial(_cut, at, 1 + draw.number(40)),
            partial(_insert, at, draw.bytes(1 + draw.number(16))),
        ]
    )


def _mutated(draw: Draw, data: bytes) -> bytes:
    for _ in range(1 + draw.number(4)):
        data = _mutation(draw)(data) if data else draw.bytes(4)
    return data


def messages(draw: Draw) -> None:
    """A side sends another message than it took into its transcript: never complete on both sides."""
    flow, side = draw.choice(sorted(FLOWS)), draw.choice(["client", "server"])
    client, server = _ends(flow)
    number, mend, changed = draw.number(len(sizes(flow, side))), draw.number(2), False

    def mutate(message: bytes) -> list[bytes]:
        nonlocal changed
        spoiled = _mutated(draw, message) or b"\0"
        if mend:
            spoiled = _mend(spoiled)
        changed = spoiled != message
        return [spoiled]

    spoil(client if side == "client" else server, replaced(number, mutate))
    outcome(client, server)
    assert not (changed and client.complete and server.complete), "completed in spite of a changed message"
    _bounded(client, server)


def wire(draw: Draw) -> None:
    """Bytes of some flights are changed on their way."""
    client, server = _ends(draw.choice(sorted(FLOWS)))
    spoiled = {draw.number(6) for _ in range(2)}
    for number in range(8):
        one, other = ((client, server), (server, client))[number % 2]
        _go_on(one)
        data = b"".join(one.take())
        other.feed(_mutated(draw, data) if number in spoiled else data)
    _bounded(client, server)


def after(draw: Draw) -> None:
    """Records of every kind after the handshake."""
    client, server = _ends(draw.choice(sorted(FLOWS)))
    connect(client, server)
    one, other = draw.choice([(client, server), (server, client)])
    for _ in range(1 + draw.number(6)):
        kind = draw.choice([ContentType.HANDSHAKE, ContentType.HANDSHAKE, *ContentType])
        content = draw.bytes(draw.number(12))
        if draw.number(2):
            body = draw.bytes(draw.number(4))
            content = bytes((draw.choice(list(HandshakeType)),)) + len(body).to_bytes(3) + body
        one._writer.write(kind, content)
        carry(one, other)
        _go_on(other)
        carry(other, one)
        _go_on(one)
    _bounded(client, server)


def parsers(draw: Draw) -> None:
    """Any bytes as any structure."""
    parse = PARSERS[draw.choice(sorted(PARSERS))]
    with contextlib.suppress(Abort):
        parse(draw.bytes(draw.number(INPUT_BYTES)))


TARGETS: Mapping[str, Callable[[Draw], None]] = {
    each.__name__: each for each in (messages, messages, wire, after, parsers)
}


def _go_on(end: Endpoint) -> None:
    """Whatever comes, only a typed error may be raised."""
    with contextlib.suppress(LinkError):
        if end.complete:
            end.read()
        else:
            end.handshake()


def _bounded(*ends: Endpoint) -> None:
    for end in ends:
        assert len(end._shake._partial) <= LONGEST, "more of a message is kept than any may have"


def one_input(data: bytes) -> str:
    """Raises whatever a finding raises; returns what was done."""
    draw = Draw(data)
    name = draw.choice(sorted(TARGETS))
    TARGETS[name](draw)
    return name


# -- the command ---------------------------------------------------------------------------------------------------


def fuzz(minutes: float, seed: int) -> int:
    """Returns the number of findings."""
    drawn, done, findings = random.Random(seed), Counter[str](), 0
    for flow in FLOWS:
        _ends(flow)
    began, grown = time.monotonic(), _memory()
    while time.monotonic() - began < minutes * 60:
        data = drawn.randbytes(INPUT_BYTES)
        try:
            done[one_input(data)] += 1
        except Exception:  # noqa: BLE001 — whatever it is, it is the finding
            findings += 1
            print(f"finding, repeat it with --input {data.hex()}", traceback.format_exc(), sep="\n", flush=True)
    parts = ", ".join(f"{count} {name}" for name, count in sorted(done.items()))
    grown = _memory() - grown
    print(f"seed {seed}: {sum(done.values())} inputs ({parts}) in {minutes:g} minutes, {findings} findings")
    print(f"memory grew by {grown / 1024:.1f} MiB")
    return findings


def _memory() -> int:
    """The most that this process has had, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--input", help="repeat this one, in hexadecimal")
    options = parser.parse_args()
    if options.input is not None:
        print(one_input(bytes.fromhex(options.input)))
        return
    seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    sys.exit(bool(fuzz(options.minutes, seed)))


if __name__ == "__main__":
    main()
