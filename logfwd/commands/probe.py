"""`logfwd validate --connect`: whether each receiver, at each of its addresses, would welcome each stream."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from logfwd.config import ForwarderConfig
from logfwd.definition import Stream
from logfwd.links.greeting import greet
from streams import program
from streams.addresses import join_address, split_address
from streams.errors import LinkError, NotListening, ProtocolError
from streams.names import AddressInfo
from streams.security import stacks
from streams.security.connecting import resolve
from streams.security.endpoint import Party
from streams.security.modes import Mode

AT_ONCE = 8
"""Links under way."""


class _Answer(NamedTuple):
    """Of one address: the text of its line, and whether it is that of a welcome."""

    text: str
    welcome: bool
    absent: bool = False
    """Whether nothing listens there, so that the receiver's other addresses are used."""


async def probe(config: ForwarderConfig) -> None:
    """Print a line for each address of each receiver of each stream; LinkError if a stream has no link to one."""
    prober = _Prober(config)
    asked = [(stream, receiver) for stream in config.streams for receiver in stream.receivers or config.receivers]
    failed = 0
    for (stream, _), answers in zip(asked, await asyncio.gather(*(prober.ask(*each) for each in asked)), strict=True):
        reached = any(answer.welcome for answer in answers)
        failed += not reached or any(not (answer.welcome or answer.absent) for answer in answers)
        for answer in answers:
            said = "" if answer.welcome else "not used: " if reached and answer.absent else "no link: "
            program.say(f"{stream.name}: {said}{answer.text}", err=not answer.welcome)
    if failed:
        count = f"{failed} of {len(asked)} pairs of stream and receiver"
        raise LinkError(f"{count} would get no link, as said above")


class _Prober:
    """Asks, a few at a time."""

    def __init__(self, config: ForwarderConfig) -> None:
        self._config = config
        self._parties: dict[str, Party] = {}
        """By mode."""
        self._room = asyncio.Semaphore(AT_ONCE)

    async def ask(self, stream: Stream, receiver: str) -> Sequence[_Answer]:
        """What each address of a receiver answers to a stream."""
        (mode,) = stacks.named([stream.security], self._config.tls)
        if mode.name not in self._parties:
            self._parties[mode.name] = stacks.client(mode, self._config.tls)
        try:
            async with self._room:
                found = await resolve(receiver)
        except LinkError as error:
            return [_Answer(str(error), False)]
        return await asyncio.gather(*(self._ask_at(stream, mode, receiver, at) for at in found))

    async def _ask_at(self, stream: Stream, mode: Mode, receiver: str, at: AddressInfo) -> _Answer:
        where, name = _where(receiver, at), stream.server_name or self._config.server_name
        try:
            async with self._room:
                facts, welcome = await greet(stream, mode, receiver, at, self._parties[mode.name], server_name=name)
        except (LinkError, ProtocolError, ConnectionError) as error:
            text = str(error).removeprefix(f"{receiver}: ")
            return _Answer(f"{where}: {text}", False, absent=isinstance(error, NotListening))
        negotiated = f"{facts.version} {facts.group} {facts.cipher} {facts.authentication}"
        topic = welcome.topic if welcome.topic_id else f"{welcome.topic}, which will be created"
        return _Answer(f"{where} {negotiated}, topic {topic}", True)


def _where(receiver: str, at: AddressInfo) -> str:
    """A receiver as it is configured, and which of its addresses this is."""
    host, port = str(at[4][0]), int(at[4][1])
    return receiver if split_address(receiver)[0] == host else f"{receiver} ({join_address(host, port)})"
