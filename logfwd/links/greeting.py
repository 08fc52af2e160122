"""Greets a receiver as far as WELCOME, to learn whether it would take a stream; opens no run and sends nothing.

The id is one of a probe, which receivers keep apart from forwarders: a link in use is not superseded, no clone is
suspected, no topic is made. Without `patient`, a receiver that cannot reach its sink says so instead of a welcome.
"""

from __future__ import annotations

import asyncio
import uuid

from logfwd.definition import Stream
from streams.errors import Code, HandshakeFailed, LinkError, LinkRefused, PolicyViolation
from streams.names import AddressInfo
from streams.security import modes
from streams.security.connecting import connect
from streams.security.endpoint import Facts, Party
from streams.security.explaining import explained
from streams.security.modes import Mode
from streams.security.transport import Link
from streams.wire import messages as m
from streams.wire.connection import ForwarderConnection

ANSWER_SECONDS = 20.0


async def greet(
    stream: Stream, mode: Mode, receiver: str, at: AddressInfo, party: Party, *, server_name: str | None
) -> tuple[Facts, m.Welcome]:
    """What the handshake negotiated, and the answer; LinkError if the stream would get no link there, and why."""
    try:
        link = await connect(receiver, party, server_name=server_name, at=[at])
    except HandshakeFailed as failed:
        raise explained(failed, mode, receiver) from failed
    try:
        modes.check(mode, link.facts)
        async with asyncio.timeout(ANSWER_SECONDS):
            welcome = await _welcome(link, stream)
    except TimeoutError:
        raise LinkError(f"the receiver gave no answer within {ANSWER_SECONDS:g} s") from None
    finally:
        await link.close()
    if stream.topic is not None and welcome.topic != stream.topic:
        raise PolicyViolation(f"the receiver writes to topic {welcome.topic!r}, not to {stream.topic!r}")
    return link.facts, welcome


async def _welcome(link: Link, stream: Stream) -> m.Welcome:
    wire, name = ForwarderConnection(m.MAX_FRAME_BYTES_BEFORE_WELCOME), m.PROBE_ID + uuid.uuid4().hex
    hello = m.Hello(m.VERSION, name, name, stream.name, stream.security, stream.mirror_of or "")
    link.write(*wire.send(hello))
    while data := await link.receive():
        for event in wire.messages(data):
            if isinstance(event, m.Error):
                raise LinkRefused(Code.parse(event.code), event.text)
            if isinstance(event, m.Welcome):
                link.write(*wire.send(m.Goaway("a probe")))
                return event
    raise LinkError("the receiver closed the link without an answer")
