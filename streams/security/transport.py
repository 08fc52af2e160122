"""Links: TLS over asyncio, by a hand-written BufferedProtocol over an endpoint that does no I/O.

asyncio's own TLS never sends a fatal alert, does not report the group, and costs three times as much. The memory of a
link is bounded in both directions: reading from the socket stops while the consumer lags, and `drain` waits while the
peer does. Everything given to one `write` leaves in one system call. Handshakes, and records that carry next to
nothing, are taken in turns with those of other links; so are their ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import time
from typing import cast

from streams.addresses import peer_and_host
from streams.errors import Flooded, HandshakeFailed, LinkError, forget_frames
from streams.security.arriving import HANDSHAKE_READ_BYTES, READ_BUFFER_BYTES, Records, Use, arriving
from streams.security.endpoint import Endpoint, Facts
from streams.security.rotation import Rotation
from streams.turns import Turns

INBOX_HIGH_BYTES = 4 * 1024 * 1024
OUTBOX_HIGH_BYTES = 1024 * 1024
GATHER_BYTES = 128 * 1024
CLOSE_SECONDS = 2.0
RECORD_BYTES = 16 * 1024


class Link(asyncio.BufferedProtocol):
    """One TLS connection, made by `connect` or by a listener."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        turns: Turns | None = None,
        inbox_bytes: int = INBOX_HIGH_BYTES,
        answers_after_goodbye: bool = False,
    ) -> None:
        """`turns`: shared by links that must not hold each other up, for handshakes and floods of small records.
        `inbox_bytes`: reading from the socket stops while more than this is received and not taken.
        `answers_after_goodbye`: a peer that has finished sending may still wait for an answer (a half-closed
        connection), so the owner closes the link.
        """
        self._loop = loop = asyncio.get_running_loop()
        self._most_inbox_bytes, self._answers_after_goodbye = inbox_bytes, answers_after_goodbye
        self._endpoint = endpoint
        self._turns, self._records, self._use = turns or Turns(), Records(), Use(time.monotonic())
        self._rest = memoryview(b"")
        """What has arrived and waits for its turn."""
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
        self._reading_paused = self._writing_paused = self._is_held = False
        self._most_read_bytes = HANDSHAKE_READ_BYTES
        self._owes_answers = False
        """True if TLS itself has answered something (KeyUpdate) that the peer does not read."""
        self.established: asyncio.Future[None] = loop.create_future()
        """The end of the handshake, after which there are `facts`."""
        self.established.add_done_callback(lambda done: done.cancelled() or done.exception())  # no report if unawaited
        self.peer = self.host = ""
        """Where the peer is: with its port, and without."""
        self.facts: Facts
        self.connect_seconds = 0.0
        self.heard_bytes = self.bytes_sent = self.records_sent = 0
        self._born = self.heard_at = time.monotonic()
        self._rotation = Rotation()

    # -- for the owner -----------------------------------------------------------------------------------------

    @property
    def age(self) -> float:
        """Seconds since the connection was made."""
        return time.monotonic() - self._born

    def should_rotate(self) -> bool:
        """True when a fresh link with fresh keys is due."""
        renews_keys = self._endpoint.renews_keys
        return self._rotation.is_due(self.records_sent, self.bytes_sent, self.age, renews_keys=renews_keys)

    def attempt(self) -> Facts:
        """What is known of the handshake while it runs, or after it failed."""
        return self._endpoint.facts(self.connect_seconds)

    @property
    def held_up(self) -> bool:
        """Whether the peer reads more slowly than we write."""
        return self._writing_paused

    @property
    def inbox_bytes(self) -> int:
        """Plaintext that was received and not taken."""
        return self._inbox_bytes

    def read_at_most(self, size: int, *, inbox_bytes: int) -> None:
        """Read in pieces of this size, until so much waits to be received: uvloop reads many pieces in a row."""
        self._most_read_bytes, self._most_inbox_bytes = min(size, READ_BUFFER_BYTES), inbox_bytes

    def hold(self, is_held: bool) -> None:
        """Read nothing until it is held no more."""
        self._is_held = is_held
        self._pace_reading()

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
        self._pace_reading()
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

    def forget(self) -> None:
        """Let go of where its end was raised: that holds the link, and it that, until all garbage is collected."""
        forget_frames(self._error)
        if self.established.done() and not self.established.cancelled():
            forget_frames(self.established.exception())

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
        self.peer, self.host = peer_and_host(transport.get_extra_info("peername"))
        self._advance()

    def get_buffer(self, sizehint: int) -> memoryview:
        return arriving.buffer[: self._most_read_bytes]

    def buffer_updated(self, nbytes: int) -> None:
        data, self.heard_bytes = arriving.buffer[:nbytes], self.heard_bytes + nbytes
        size = self._records.piece(data) if self._endpoint.has_records else nbytes
        if size == nbytes and self._endpoint.complete:
            self._feed(data)
            return
        self._rest, self.heard_at = memoryview(bytes(data)), math.inf
        self._pace_reading()
        self._ask_for_turn(size)

    def _ask_for_turn(self, size: int) -> None:
        goes_on = not self._endpoint.complete and self._records.goes_on()
        self._turns.ask(self.host, lambda: self._take_piece(size), goes_on=goes_on)

    def _take_piece(self, size: int) -> None:
        """A step of the handshake, or the next of many small records; the rest waits for another turn."""
        data, self._rest, self.heard_at = self._rest[:size], self._rest[size:], time.monotonic()
        if self._transport is None or self._error is not None:
            self._rest = self._rest[:0]
            return
        self._feed(data)
        if len(self._rest):
            self._ask_for_turn(self._records.piece(self._rest))
        self._pace_reading()

    def _feed(self, data: memoryview) -> None:
        if self._endpoint.complete:
            self._use.arrived += len(data)
        self._endpoint.feed(data)
        self._advance()

    def _pace_reading(self) -> None:
        """Read from the socket only what is taken, and answered to somebody who reads the answers."""
        if self._transport is None or self._transport.is_closing():
            return
        pause = self._is_held or self._owes_answers or len(self._rest) > 0 or self._inbox_bytes > self._most_inbox_bytes
        if pause and not self._reading_paused:
            self._transport.pause_reading()
        elif self._reading_paused and not pause:
            self._transport.resume_reading()
        self._reading_paused = pause

    def eof_received(self) -> bool:
        self._turns.ask(self.host, self._take_end)
        return True

    def _take_end(self) -> None:
        """The peer sends nothing more: thousands may leave at once."""
        self._endpoint.feed_eof()
        self._advance()
        waits_for_answer = self._answers_after_goodbye and self._ended and self._error is None
        if self._transport is not None and not waits_for_answer:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if not self._ended and self._error is None:
            why = f": {error}" if error else " without a close_notify"
            self._error = LinkError(f"the link was cut{why}")
        if not self.established.done():
            text = "the peer closed the connection during the handshake"
            self.established.set_exception(HandshakeFailed("disconnected", text))
        self._turns.ask(self.host, self._be_gone)

    def _be_gone(self) -> None:
        if not self._gone.done():
            self._gone.set_result(None)
        self._writing_paused = False
        self._wake()

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = self._owes_answers = False
        self._pace_reading()
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
        self._owes_answers = (self._flush() and self._writing_paused) or self._owes_answers
        if self._endpoint.has_records and self._endpoint.complete and self._use.is_flood(time.monotonic()):
            self._fail(Flooded("the peer sends TLS records that carry next to nothing"))
        self._pace_reading()

    def _handshake(self) -> bool:
        done = self._endpoint.handshake()
        self._flush()
        if done:
            self._most_read_bytes = READ_BUFFER_BYTES
            self.facts = self._endpoint.facts(self.connect_seconds)
            if not self.established.done():
                self.established.set_result(None)
        return done

    def _take_plaintext(self) -> None:
        while data := self._endpoint.read():
            self._inbox.append(data)
            self._inbox_bytes += len(data)
            self._use.useful += len(data)
            self.heard_at = time.monotonic()
        if data is None:
            self._ended = True
            self._turns.ask(self.host, self._wake)
        elif self._inbox_bytes >= self._wanted_bytes:
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

    def _flush(self) -> bool:
        """Send what the endpoint has; True if there was anything."""
        if self._transport is None or self._transport.is_closing():
            return False
        if parts := self._endpoint.take():
            self._transport.writelines(parts)
        return bool(parts)
