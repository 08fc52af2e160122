"""Links: TLS over asyncio, by a hand-written BufferedProtocol over an endpoint that does no I/O; and connecting one.

asyncio's own TLS never sends a fatal alert, does not report the group, and costs three times as much. The memory of a
link is bounded in both directions: reading from the socket stops while the consumer lags, and `drain` waits while the
peer does. Everything given to one `write` leaves in one system call.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import threading
import time
from typing import cast

from streams.addresses import join_address, split_address
from streams.errors import HandshakeFailed, LinkError
from streams.security.endpoint import Endpoint, Facts, Party

READ_BUFFER_BYTES = 256 * 1024
INBOX_HIGH_BYTES = 4 * 1024 * 1024
OUTBOX_HIGH_BYTES = 1024 * 1024
GATHER_BYTES = 128 * 1024
CLOSE_SECONDS = 2.0
RECORD_BYTES = 16 * 1024

ROTATE_RECORDS = 1 << 23
ROTATE_BYTES = 64 << 30
ROTATE_SECONDS = 3600.0
"""OpenSSL never changes keys by itself and pyOpenSSL cannot ask it to, so links are replaced instead (±20 %).

An endpoint that renews its keys is spared the first two. After the third every link is replaced: only a new handshake
has a new key exchange and looks at the certificates again.
"""


class _Arriving(threading.local):
    """The buffer that all links of a thread read into: `feed` copies it before the loop turns to another link."""

    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(READ_BUFFER_BYTES))


_arriving = _Arriving()


class Link(asyncio.BufferedProtocol):
    """One TLS connection, made by `connect` or by a listener."""

    def __init__(
        self, endpoint: Endpoint, *, inbox_bytes: int = INBOX_HIGH_BYTES, answers_after_goodbye: bool = False
    ) -> None:
        """`inbox_bytes`: reading from the socket stops while more than this is received and not taken.

        `answers_after_goodbye`: a peer that has finished sending may still wait for an answer (a half-closed
        connection), so the owner closes the link.
        """
        loop = asyncio.get_running_loop()
        self._most_inbox_bytes, self._answers_after_goodbye = inbox_bytes, answers_after_goodbye
        self._loop = loop
        self._endpoint = endpoint
        self._transport: asyncio.Transport | None = None
        self._inbox: list[bytes] = []
        """Plaintext that was received and not taken."""
        self._inbox_bytes = self._wanted_bytes = 0
        self._arrival: asyncio.Future[None] | None = None
        """Done when `_wanted_bytes` are in the inbox, or the link has ended; None while nobody waits."""
        self._room: asyncio.Future[None] | None = None
        """Done when the socket's buffer has drained; None while nobody waits."""
        self._gone: asyncio.Future[None] = loop.create_future()
        """Done when the connection is closed, for whatever reason."""
        self._ended = False
        """True after the peer's goodbye; without one, the end is an error."""
        self._error: LinkError | None = None
        self._reading_paused = False
        self._writing_paused = False
        self.established: asyncio.Future[None] = loop.create_future()
        """The end of the handshake, after which there are `facts`."""
        self.established.add_done_callback(lambda done: done.cancelled() or done.exception())  # no report if unawaited
        self.peer = ""
        self.facts: Facts
        self.connect_seconds = 0.0
        self.bytes_sent = 0
        self.records_sent = 0
        self._born = self.heard_at = time.monotonic()
        self._rotation_share = random.uniform(0.8, 1.2)  # noqa: S311 — spreads load, hides nothing

    # -- for the owner -----------------------------------------------------------------------------------------

    @property
    def age(self) -> float:
        """Seconds since the connection was made."""
        return time.monotonic() - self._born

    def should_rotate(self) -> bool:
        """True when a fresh link with fresh keys is due."""
        share = self._rotation_share
        worn = self.records_sent > ROTATE_RECORDS * share or self.bytes_sent > ROTATE_BYTES * share
        return (worn and not self._endpoint.renews_keys) or self.age > ROTATE_SECONDS * share

    def attempt(self) -> Facts:
        """What is known of the handshake while it runs, or after it failed."""
        return self._endpoint.facts(self.connect_seconds)

    @property
    def held_up(self) -> bool:
        """Whether the peer reads more slowly than we write."""
        return self._writing_paused

    async def receive(self, at_least: int = 1) -> bytes:
        """The plaintext received so far; b"" after the peer's goodbye. LinkError if the link was cut.

        Waits for `at_least` bytes, or GATHER_BYTES if that is less. Bytes that came before the end are returned first.
        """
        while self._inbox_bytes < min(at_least, GATHER_BYTES):
            if self._error is not None or self._ended:
                if self._inbox:
                    break
                if self._error is not None:
                    raise self._error
                return b""
            self._wanted_bytes = min(at_least, GATHER_BYTES)
            self._arrival = self._loop.create_future()
            try:
                await self._arrival
            finally:
                self._arrival = None
        data = b"".join(self._inbox) if len(self._inbox) > 1 else self._inbox[0]
        self._inbox.clear()
        self._inbox_bytes = 0
        if self._reading_paused and self._transport is not None:
            self._reading_paused = False
            self._transport.resume_reading()
        return data

    def write(self, *parts: bytes | bytearray | memoryview) -> None:
        """Encrypt and send. On a link that is gone this does nothing; `receive` raises the reason."""
        if self._transport is None or self._error is not None:
            return
        data = b"".join(parts) if sum(map(len, parts)) < RECORD_BYTES else None
        for part in parts if data is None else (data,):
            self._endpoint.write(part)
            self.bytes_sent += len(part)
            self.records_sent += len(part) // RECORD_BYTES + 1
        self._flush()

    async def drain(self) -> None:
        """Wait while the peer is slower than we are."""
        while self._writing_paused and self._transport is not None:
            if self._room is None or self._room.done():
                self._room = self._loop.create_future()
            await asyncio.shield(self._room)

    async def close(self) -> None:
        """Say goodbye and wait a bounded time for the connection to end."""
        transport = self._transport
        if transport is None:
            return
        if self._endpoint.complete and self._error is None:
            self._endpoint.close()
        self._flush()
        transport.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await asyncio.shield(self._gone)
                return
        transport.abort()

    def abort(self) -> None:
        """Drop the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    async def establish(self, seconds: float) -> None:
        """Wait for the end of the handshake; HandshakeFailed if it fails or takes longer."""
        try:
            async with asyncio.timeout(seconds):
                await self.established
        except TimeoutError:
            self.abort()
            raise HandshakeFailed("timeout", f"no TLS handshake within {seconds:g} s") from None
        except HandshakeFailed:  # the link closes once its alert is sent
            raise
        except BaseException:
            self.abort()
            raise

    # -- asyncio's side ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)
        transport.set_write_buffer_limits(high=OUTBOX_HIGH_BYTES)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        name = transport.get_extra_info("peername")
        self.peer = join_address(str(name[0]), int(name[1])) if isinstance(name, tuple) else str(name)
        self._advance()

    def get_buffer(self, sizehint: int) -> memoryview:
        return _arriving.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._endpoint.feed(_arriving.buffer[:nbytes])
        self._advance()

    def eof_received(self) -> bool:
        self._endpoint.feed_eof()
        self._advance()
        return self._answers_after_goodbye and self._ended and self._error is None

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if not self._ended and self._error is None:
            self._error = LinkError(
                f"the link was cut: {error}" if error else "the link was cut without a close_notify"
            )
        if not self.established.done():
            self.established.set_exception(
                HandshakeFailed("disconnected", "the peer closed the connection during the handshake")
            )
        if not self._gone.done():
            self._gone.set_result(None)
        self._writing_paused = False
        self._wake()

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def _advance(self) -> None:
        """Bytes may have come: continue the handshake, or take plaintext."""
        if self._error is not None or self._ended:
            return
        try:
            if not self._endpoint.complete and not self._handshake():
                return
            self._take_plaintext()
        except LinkError as error:
            self._fail(error)
        self._flush()

    def _handshake(self) -> bool:
        done = self._endpoint.handshake()
        self._flush()
        if done:
            self.facts = self._endpoint.facts(self.connect_seconds)
            if not self.established.done():
                self.established.set_result(None)
        return done

    def _take_plaintext(self) -> None:
        while data := self._endpoint.read():
            self._inbox.append(data)
            self._inbox_bytes += len(data)
            self.heard_at = time.monotonic()
        if data is None:
            self._ended = True
        if self._inbox_bytes > self._most_inbox_bytes and not self._reading_paused and self._transport is not None:
            self._reading_paused = True
            self._transport.pause_reading()
        if self._ended or self._inbox_bytes >= self._wanted_bytes:
            self._wake()

    def _fail(self, error: LinkError) -> None:
        """Send the alert that the endpoint has ready, then close."""
        self._error = error
        self._flush()
        if not self.established.done():
            self.established.set_exception(error)
        if self._transport is not None:
            self._transport.close()
        self._wake()

    def _wake(self) -> None:
        for future in (self._arrival, self._room):
            if future is not None and not future.done():
                future.set_result(None)

    def _flush(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        parts = self._endpoint.take()
        if parts:
            self._transport.write(parts[0] if len(parts) == 1 else b"".join(parts))


# -- making links --------------------------------------------------------------------------------------------------


async def connect(
    address: str,
    party: Party,
    *,
    server_name: str | None = None,
    connect_timeout: float = 10.0,
    handshake_timeout: float = 10.0,
) -> Link:
    """Make a link to "host:port"; the server must prove that it is `server_name` (the host, if not given)."""
    host, port = split_address(address)
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    sock = await _connected_socket(host, port, address, connect_timeout)
    connected = time.perf_counter() - started

    try:
        link = Link(party.endpoint(server_name or host))
    except ValueError as error:
        sock.close()
        raise LinkError(f"{address}: {server_name or host!r} cannot be a host name: {error}") from error
    link.connect_seconds = connected
    await loop.create_connection(lambda: link, sock=sock)
    try:
        await link.establish(handshake_timeout)
    except HandshakeFailed as error:
        error.seen = link.attempt().log_fields()
        raise
    return link


async def _connected_socket(host: str, port: int, address: str, seconds: float) -> socket.socket:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(seconds):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            error: OSError | None = None
            for family, kind, protocol, _, target in found:
                sock = socket.socket(family, kind, protocol)
                sock.setblocking(False)
                try:
                    await loop.sock_connect(sock, target)
                except OSError as refused:
                    sock.close()
                    error = refused
                except BaseException:
                    sock.close()
                    raise
                else:
                    return sock
            raise LinkError(f"{address}: cannot connect: {error}")
    except TimeoutError:
        raise LinkError(f"{address}: no connection within {seconds:g} s") from None
    except (OSError, UnicodeError) as error:  # the latter for what cannot be a host name
        raise LinkError(f"{address}: cannot connect: {error}") from error
