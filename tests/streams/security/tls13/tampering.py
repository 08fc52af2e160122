"""A side that sends other messages than it took into its transcript: changed before sealing, as only a peer can."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from streams.errors import HandshakeFailed
from streams.security.tls13.alerts import Abort, Alert
from streams.security.tls13.endpoint import Tls13Endpoint as Endpoint
from streams.security.tls13.names import ContentType, HandshakeType
from tests.streams.security.tls13.support import carry

EVERY_BYTE = "EVERY_BYTE" in os.environ
"""Set it to change every byte of the long messages, too; that takes minutes."""
Change = Callable[[int, list[bytes]], list[bytes]]
"""Takes the number of messages sent before and a flight's messages; gives what is sent instead."""


def split(flight: bytes) -> Iterator[bytes]:
    while flight:
        size = 4 + int.from_bytes(flight[1:4])
        yield flight[:size]
        flight = flight[size:]


def spoil(endpoint: Endpoint, change: Change) -> None:
    """Have this side send changed messages."""
    writer, write, sent = endpoint._writer, endpoint._writer.write, 0

    def changed(kind: int, content: Any) -> None:
        nonlocal sent
        if kind == ContentType.HANDSHAKE:
            messages = list(split(bytes(content)))
            content = b"".join(change(sent, messages))
            sent += len(messages)
        if content:
            write(kind, content)

    writer.write = changed  # type: ignore[method-assign]


def outcome(client: Endpoint, server: Endpoint) -> list[HandshakeFailed]:
    """Run the handshake until nothing moves; what either side raised."""
    failures: list[HandshakeFailed] = []
    failed: set[Endpoint] = set()
    for _ in range(8):
        for one, other in ((client, server), (server, client)):
            try:
                if not one.complete and one not in failed:
                    one.handshake()
                elif one.complete:
                    one.read()
            except HandshakeFailed as error:
                if one not in failed:
                    failures.append(error)
                    failed.add(one)
            carry(one, other)
    return failures


def instead(intruders: list[bytes], _: bytes) -> list[bytes]:
    return intruders


def replaced(number: int, messages_instead: Callable[[bytes], list[bytes]]) -> Change:
    """Change the message of this number alone."""

    def change(sent: int, messages: list[bytes]) -> list[bytes]:
        changed: list[bytes] = []
        for index, message in enumerate(messages, sent):
            changed += messages_instead(message) if index == number else [message]
        return changed

    return change


KINDS = (*HandshakeType, 0, 3, 5, 25, 255)
"""Every handshake message that this stack knows, and others."""


def all_unexpected_after(connected: Callable[[], tuple[Endpoint, Endpoint]]) -> None:
    """Once a handshake is over, no message but KeyUpdate may come, to either side."""
    for kind in KINDS:
        for side in (0, 1):
            ends = connected()
            one, other = ends[side], ends[1 - side]
            one._writer.write(ContentType.HANDSHAKE, bytes((kind, 0, 0, 1, 0)))
            carry(one, other)
            if kind == HandshakeType.KEY_UPDATE:
                assert other.read() == b""
                continue
            with pytest.raises(HandshakeFailed) as caught:
                other.read()
            assert isinstance(caught.value.__cause__, Abort)
            assert caught.value.__cause__.alert == Alert.UNEXPECTED_MESSAGE, f"{kind}"


def places(message: bytes, beginning: int) -> list[int]:
    """Every byte of a short message and of what begins a long one, every 61st of the rest."""
    return [at for at in range(len(message)) if EVERY_BYTE or at < beginning or len(message) < 400 or at % 61 == 0]
