"""HTTP/1.1 of the admin address: requests without a body worth reading, answered one after the other.

h11 knows the protocol; this module knows connections. No I/O but that of their transports. Imported at the first
connection, with application.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote, urlsplit

import h11
import msgspec

from streams.telemetry import logs

MAX_HEAD_BYTES = 8 * 1024
MAX_BODY_BYTES = 1024
TEXT = "text/plain; charset=utf-8"
METHODS = ("GET", "HEAD")

log = logs.get_logger("admin")


class Request(msgspec.Struct, frozen=True):
    """A request: its path is decoded, the names of its headers are in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]


class Response(msgspec.Struct, frozen=True):
    """An answer."""

    body: bytes
    content_type: str = "application/json"
    status: int = HTTPStatus.OK
    headers: Mapping[str, str] = {}


class Refused(Exception):
    """The request gets no other answer than this one."""

    def __init__(self, status: HTTPStatus, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.response = Response(f"{text}\n".encode(), TEXT, status, headers or {})


Handler = Callable[[Request], Awaitable[Response]]
"""May raise Refused."""


class Http(asyncio.Protocol):
    """One connection."""

    _transport: asyncio.Transport

    def __init__(self, handle: Handler, headers: Mapping[str, str]) -> None:
        """`headers`: of every answer."""
        self._handle, self._headers = handle, headers
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._request: h11.Request | None = None
        """The one that is being received or answered."""
        self._body_bytes = 0
        self._answering: asyncio.Task[None] | None = None
        """While it runs nothing more is read."""
        self._may_write = asyncio.Event()
        self._may_write.set()

    # -- asyncio's side ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._http.receive_data(data)
        self._go_on()

    def eof_received(self) -> bool:
        """A client that sends nothing more may still wait for its answer."""
        self._http.receive_data(b"")
        self._go_on()
        return self._answering is not None

    def connection_lost(self, error: Exception | None) -> None:
        if self._answering is not None:
            self._answering.cancel()

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    # -- requests and answers ----------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Take what has come, up to the end of a request."""
        try:
            while self._answering is None and not self._transport.is_closing():
                event = self._http.next_event()
                if event is h11.NEED_DATA or event is h11.PAUSED:
                    return
                if isinstance(event, h11.Request):
                    self._request, self._body_bytes = event, 0
                    self._check(event)
                elif isinstance(event, h11.Data):
                    self._body_bytes += len(event.data)
                    if self._body_bytes > MAX_BODY_BYTES:
                        raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "no request here has a body")
                elif isinstance(event, h11.EndOfMessage):
                    self._begin_answer()
                else:  # the client has left
                    self._transport.close()
        except Refused as refused:
            self._send(refused.response)
        except h11.RemoteProtocolError as error:
            hint = error.error_status_hint
            self._send(Refused(HTTPStatus(hint), f"not a valid HTTP request: {error}").response)

    def _check(self, event: h11.Request) -> None:
        if len(event.target) + sum(len(name) + len(value) for name, value in event.headers) > MAX_HEAD_BYTES:
            raise Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the head of the request is too large")
        if self._http.they_are_waiting_for_100_continue:
            raise Refused(HTTPStatus.EXPECTATION_FAILED, "no request here has a body")

    def _begin_answer(self) -> None:
        self._transport.pause_reading()
        self._answering = asyncio.get_running_loop().create_task(self._answer())

    async def _answer(self) -> None:
        assert self._request is not None
        try:
            response = await self._handle(_parsed(self._request))
        except Refused as refused:
            response = refused.response
        except Exception as error:  # of one answer; others go on
            log.exception("admin request failed", reason=f"{type(error).__name__}: {error}")
            response = Refused(HTTPStatus.INTERNAL_SERVER_ERROR, "the program failed to answer; see its log").response
        self._send(response)
        await self._may_write.wait()
        self._answering = self._request = None
        if not self._transport.is_closing():
            self._http.start_next_cycle()
            self._transport.resume_reading()
            self._go_on()

    def _send(self, response: Response) -> None:
        """Send an answer; the connection ends if it cannot be used again."""
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self._transport.close()
            return
        headers = {
            "Date": time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime()),
            "Content-Type": response.content_type,
            "Content-Length": str(len(response.body)),
            **self._headers,
            **response.headers,
        }
        if self._http.their_state is not h11.DONE:
            headers["Connection"] = "close"
        reason = HTTPStatus(response.status).phrase
        parts = [self._http.send(h11.Response(status_code=response.status, headers=[*headers.items()], reason=reason))]
        if self._request is None or self._request.method != b"HEAD":
            parts.append(self._http.send(h11.Data(data=response.body)))
        parts.append(self._http.send(h11.EndOfMessage()))
        self._transport.write(b"".join(part for part in parts if part))
        if self._http.states != {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}:
            self._transport.close()


def _parsed(request: h11.Request) -> Request:
    try:
        target = urlsplit(request.target.decode("ascii"))
    except ValueError as error:
        raise Refused(HTTPStatus.BAD_REQUEST, f"not a valid HTTP request: {error}") from None
    return Request(
        request.method.decode("ascii"),
        unquote(target.path),
        dict(parse_qsl(target.query, keep_blank_values=True)),
        {name.decode("ascii"): value.decode("latin-1") for name, value in request.headers},
    )
