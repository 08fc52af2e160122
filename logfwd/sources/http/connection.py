"""One client's connection: HTTP/1.1 by h11 over a link, one request after the other, every wait with a limit.

The bytes of a request are taken from the link only as its handler asks for them. What is already received and not taken
is bounded by the link.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Protocol

import h11
import msgspec

from logfwd.sources.http.answers import Answer, Refused, malformed, try_again
from logfwd.sources.turns import Turns
from streams.config.units import KIB
from streams.errors import LinkError
from streams.security.transport import Link

MAX_HEAD_BYTES = 16 * KIB
IDLE_SECONDS = 75.0
"""How long a connection stays open after an answer; the first request must come as soon as its head."""
WRITE_SECONDS = 10.0
"""How long a client may take to read an answer."""
SMALL_BODY_BYTES = 64 * KIB
"""A body that nobody wants is read and discarded up to this size, so that the connection can be kept."""
LINGER_SECONDS = 2.0
"""How long a client that sends more than that may take to notice the answer before the connection is closed."""
TURNED_AWAY_SECONDS = 0.2
"""The same for a client that found too many others."""
GATHER_BYTES = 64 * KIB
"""Of a body whose length is known, this much is waited for at a time: fewer turns of the event loop."""
CHUNKS_A_SHARE = 4
"""Pieces of a body that are taken before other tasks get their turn."""
FREE_CHUNKS, LEAST_CHUNK_BYTES = 1024, 64
"""A body of more chunks than this must have larger ones: each costs as much as a whole request."""


class Head(msgspec.Struct, frozen=True):
    """What is known of a request before its body."""

    method: str
    path: str
    headers: Mapping[str, str]
    identities: tuple[str, ...] = ()

    def header(self, name: str) -> str:
        """The value of a header; "" without one."""
        return self.headers.get(name, "")

    @property
    def content_length(self) -> int | None:
        """The announced size of the body; None if it comes in chunks."""
        length = self.header("content-length")
        return int(length) if length else None


class Body(Protocol):
    """The body of the request under way."""

    async def piece(self) -> bytes | bytearray:
        """Its next bytes as they come, b"" at its end; refuses a client that is too slow."""


class Limits(msgspec.Struct, frozen=True):
    """How long a client may take."""

    header_seconds: float
    body_seconds: float


Handler = Callable[[Head, Body], Awaitable[Answer | None]]
"""Answers a request; None ends the connection without an answer."""


class Connection:
    """Serves one link until either side ends it."""

    def __init__(self, link: Link, handle: Handler, limits: Limits, turns: Turns) -> None:
        self._link, self._handle, self._limits, self._turns = link, handle, limits, turns
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._waiting: asyncio.Timeout | None = None
        self._stopping = False
        self._linger_seconds = LINGER_SECONDS
        self._quiet_seconds = limits.header_seconds
        """How long it may take until the next request begins."""
        self._body_deadline: float | None = None
        self._chunks = self._chunk_bytes = 0
        self._body_left = 0
        """Bytes of the body that are announced and did not come yet."""

    async def run(self) -> None:
        """Answer requests in order."""
        with contextlib.suppress(LinkError):
            try:
                while await self._serve_one():
                    self._http.start_next_cycle()
            except h11.RemoteProtocolError as error:
                await self._answer(malformed_request(error))
            except Refused as refused:
                await self._answer(refused.answer)
        await self._link.close()

    async def refuse(self, answer: Answer, *, linger: bool) -> None:
        """Answer without having read a request. Without `linger`, a client that is sending one may miss the answer."""
        self._linger_seconds = TURNED_AWAY_SECONDS if linger else 0
        with contextlib.suppress(LinkError):
            await self._answer(answer)
        await self._link.close()

    def stop(self) -> None:
        """Take nothing more from this client: a request that is not handed over yet is refused."""
        self._stopping = True
        if self._waiting is not None:
            with contextlib.suppress(RuntimeError):  # its time is up already
                self._waiting.reschedule(asyncio.get_running_loop().time())

    async def _serve_one(self) -> bool:
        """One request and its answer; False if the connection cannot be used again."""
        request = await self._request()
        if request is None:
            return False
        head = Head(
            request.method.decode("ascii"),
            request.target.decode("ascii"),
            {name.decode("ascii"): value.decode("latin-1") for name, value in request.headers},
            self._link.facts.identities,
        )
        self._body_left = head.content_length or 0
        answer = await self._handle(head, self)
        self._body_left = 0
        if answer is None:
            self._link.abort()
            return False
        return await self._answer(answer, head)

    async def _request(self) -> h11.Request | None:
        """The head of the next request; None if the client has gone, or does not send one."""
        self._body_deadline, self._chunks, self._chunk_bytes = None, 0, 0
        if self._stopping:
            return None
        loop = asyncio.get_running_loop()
        try:
            if not self._http.trailing_data[0]:
                async with self._until(loop.time() + self._quiet_seconds):
                    self._http.receive_data(await self._link.receive())
            self._quiet_seconds = IDLE_SECONDS
            await self._turns.take()
            event = await self._event(loop.time() + self._limits.header_seconds)
        except TimeoutError:
            if not self._http.trailing_data[0] or self._stopping:
                return None
            raise Refused(408, "timeout", "the head of the request did not come in time", close=True) from None
        if not isinstance(event, h11.Request):
            return None
        if len(event.target) + sum(len(name) + len(value) + 4 for name, value in event.headers) > MAX_HEAD_BYTES:
            raise Refused(431, "malformed", "the head of the request is larger than 16 KiB", close=True)
        return event

    async def piece(self) -> bytes | bytearray:
        """The next bytes of the body under way; b"" at its end."""
        if self._body_deadline is None:
            self._body_deadline = asyncio.get_running_loop().time() + self._limits.body_seconds
        try:
            event = await self._event(self._body_deadline)
        except TimeoutError:
            if self._stopping:
                raise stopping() from None
            raise Refused(408, "timeout", "the body did not come in time", close=True) from None
        if not isinstance(event, h11.Data):
            return b""
        self._body_left = max(self._body_left - len(event.data), 0)
        self._chunks += 1
        self._chunk_bytes += len(event.data)
        if self._chunks > FREE_CHUNKS and self._chunk_bytes < self._chunks * LEAST_CHUNK_BYTES:
            raise malformed(f"the body comes in chunks of less than {LEAST_CHUNK_BYTES} bytes")
        if self._chunks % CHUNKS_A_SHARE == 0:
            await self._turns.take()
        return event.data

    async def _event(self, deadline: float) -> object:
        """The next event, from bytes that were received or that come by the deadline; TimeoutError if they do not."""
        event: object = self._http.next_event()
        if event is not h11.NEED_DATA:  # as in most requests, which come whole: nothing to wait for, no timer
            return event
        async with self._until(deadline):
            while event is h11.NEED_DATA:
                if self._http.they_are_waiting_for_100_continue:
                    go_on = self._http.send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))
                    self._link.write(go_on or b"")
                data = await self._link.receive(min(self._body_left, GATHER_BYTES) or 1)
                await self._turns.take()
                self._http.receive_data(data)
                event = self._http.next_event()
        return event

    @contextlib.asynccontextmanager
    async def _until(self, deadline: float) -> AsyncIterator[None]:
        """A wait for the client: TimeoutError when it takes longer, or when `stop` is called."""
        async with asyncio.timeout_at(0 if self._stopping else deadline) as waiting:
            self._waiting = waiting
            try:
                yield
            finally:
                self._waiting = None

    # -- answers -----------------------------------------------------------------------------------------------

    async def _answer(self, answer: Answer, head: Head | None = None) -> bool:
        """Send an answer; True if the connection can be used again."""
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return False
        await self._turns.take()
        close = answer.close or self._stopping or head is None or not await self._discard_small(head)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(answer.body)),
            *answer.headers,
        ]
        if close:
            headers.append((b"connection", b"close"))
        response = h11.Response(status_code=answer.status, headers=headers, reason=answer.reason)
        out = [self._http.send(response)]
        if head is None or head.method != "HEAD":
            out.append(self._http.send(h11.Data(data=answer.body)))
        out.append(self._http.send(h11.EndOfMessage()))
        self._link.write(b"".join(part for part in out if part))
        if self._link.held_up:
            try:
                async with asyncio.timeout(WRITE_SECONDS):
                    await self._link.drain()
            except TimeoutError:
                self._link.abort()
                return False
        states = self._http.states
        if states[h11.CLIENT] not in (h11.DONE, h11.MUST_CLOSE, h11.CLOSED) and self._linger_seconds:
            await self._linger()
        return states[h11.CLIENT] is h11.DONE and states[h11.SERVER] is h11.DONE

    async def _discard_small(self, head: Head) -> bool:
        """Read to the end of a request whose body nobody wanted; False if that is not worth it."""
        if self._http.their_state is not h11.SEND_BODY:
            return True
        if self._http.they_are_waiting_for_100_continue:
            return False
        if head.header("transfer-encoding") or (head.content_length or 0) > SMALL_BODY_BYTES:
            return False
        try:
            while await self.piece():
                pass
        except Refused:
            return False
        return True

    async def _linger(self) -> None:
        """Closing at once would reset the connection, and the client might never see the answer."""
        with contextlib.suppress(LinkError, TimeoutError):
            async with asyncio.timeout(self._linger_seconds):
                while await self._link.receive():
                    await self._turns.take()


def malformed_request(error: h11.RemoteProtocolError) -> Answer:
    """What is not HTTP/1.1, or has a head that is too long."""
    status = error.error_status_hint if error.error_status_hint in (400, 413, 431, 501, 505) else 400
    return Refused(status, "malformed", f"not a valid HTTP request: {error}", close=True).answer


def stopping() -> Refused:
    """The forwarder, or this listener of it, takes nothing more."""
    return try_again(503, "stopping", "this listener is closing; send the request again", close=True)
