"""Admin HTTP: /metrics, /healthz, /readyz, /api/v1/streams, and the live page that draws it at /.

Read-only, and on the loopback interface unless configured otherwise. hosts.py has the names that it answers to. The
pages run no script but their own and load nothing from other hosts.

application.py has the paths. A forwarder also serves /api/v1/streams/NAME/batch-durations?since=COUNT: every batch
duration after the first COUNT, for callers that need the values of a given period instead of recent percentiles; and
/api/v1/streams/NAME/source: how far its files were read.

The program passes callables, which run on its event loop, so they may read what the loop owns and must not block. All
else runs on a thread and a loop of its own (adminthread.py): no scrape holds up a batch, and /healthz answers at once
however busy the program is. It shows that the program's loop turns; /readyz answers 503 while there are reasons, by
name, why the program is not ready. What is wrong but does not keep it from its work is `degraded` there, with 200
unless the question is /readyz?strict.

The port is open from the start; the thread starts and its server is imported at the first connection (0.05 CPU-s,
2 MB): many hosts are never asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING

import msgspec
from prometheus_client.registry import CollectorRegistry

from streams.addresses import join_address, split_address
from streams.descriptors import readable
from streams.errors import PipelineError
from streams.telemetry import logs
from streams.telemetry.adminthread import Loop, MakeProtocol, serving
from streams.telemetry.hosts import Hosts

if TYPE_CHECKING:
    from streams.telemetry.application import Answers, Durations, Fields, Reasons, Rows, Source

RETRY_SECONDS = 5.0

log = logs.get_logger("admin")


class AdminUnavailable(PipelineError):
    """The admin address cannot be listened on."""


class Server(msgspec.Struct, frozen=True):
    """A running server; `address` has the port that the system chose where the configured one was 0."""

    address: str


@contextlib.asynccontextmanager
async def serve(
    address: str,
    registry: CollectorRegistry,
    *,
    ready: Reasons,
    streams: Rows,
    durations: Durations | None = None,
    more: Answers | None = None,
    prepare: Callable[[], None] = lambda: None,
    degraded: Reasons = dict,
    further: Fields = dict,
    source: Source | None = None,
    program: str = "",
    hosts: Iterable[str] = (),
) -> AsyncIterator[Server]:
    """Serve until the block is left; raises AdminUnavailable.

    `prepare` is called before each scrape; `further`: fields of /api/v1/streams beside the streams; `hosts`: names that
    requests may give besides localhost.
    """
    started = time.time()
    with _listen(address) as sock:
        bound_host, port = sock.getsockname()[:2]
        allowed = Hosts(bound_host, split_address(address)[0], hosts)

        def prepare_to_serve(loop: Loop) -> MakeProtocol:
            from importlib.metadata import version

            from streams.telemetry import application

            about = {
                "program": program,
                "host": socket.gethostname(),
                "version": version("logfwd"),
                "started": round(started, 3),
            }
            status = application.Status(loop, ready, streams, durations, more or {}, prepare, degraded, further, source)
            return application.make(registry, status, about, allowed)

        server = asyncio.create_task(_keep_answering(sock, prepare_to_serve))
        try:
            yield Server(join_address(bound_host, port))
        finally:
            server.cancel()
            await asyncio.wait([server])


def _listen(address: str) -> socket.socket:
    host, port = split_address(address)
    try:
        listening = _bound(host, port) if host else _bound_everywhere(port)
    except OSError as error:
        raise AdminUnavailable(f"admin.address {address}: cannot listen there: {error.strerror or error}") from error
    listening.setblocking(False)
    return listening


def _bound(host: str, port: int) -> socket.socket:
    family, _, _, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return socket.create_server(target, family=family)


def _bound_everywhere(port: int) -> socket.socket:
    """Over IPv6 and IPv4, or over IPv4 alone on a host without the other."""
    if socket.has_dualstack_ipv6():
        with contextlib.suppress(OSError):
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


async def _keep_answering(sock: socket.socket, prepare: Callable[[Loop], MakeProtocol]) -> None:
    """Serve from the first connection on, until cancelled."""
    while True:
        try:
            with sock.dup() as same:  # what serves it closes it
                await readable(same.fileno())
                async with serving(same, prepare) as ended:
                    await asyncio.shield(ended)  # it tells when the thread has ended, also after a cancellation
        except Exception as error:  # the top of a task; such as too little memory for the server
            log.exception("admin failed", reason=f"{type(error).__name__}: {error}")
            await asyncio.sleep(RETRY_SECONDS)
