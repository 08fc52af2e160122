"""Admin HTTP over a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import socket
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from logfwd.metrics import ForwarderMetrics
from streams.addresses import split_address
from streams.telemetry import admin, adminthread, application
from streams.telemetry import client as client_of_admin
from streams.telemetry.application import PAGE
from streams.telemetry.metrics import CollectorRegistry
from tests.support.patience import PATIENCE_SECONDS


class Program:
    """What a program answers with, changed by the test."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = ForwarderMetrics(self.registry)
        self.ready: dict[str, str] = {}
        self.degraded: dict[str, str] = {}
        self.url = ""


@pytest.fixture
async def program() -> AsyncIterator[Program]:
    program = Program()
    async with admin.serve(
        "127.0.0.1:0",
        program.registry,
        ready=lambda: program.ready,
        degraded=lambda: program.degraded,
        streams=lambda: [{"stream": "http", "records": {"accepted": 3}}],
        durations=program.metrics.batch_duration.since,
        program="logfwd",
    ) as server:
        program.url = f"http://{server.address}"
        yield program


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
        yield session


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
async def test_an_address_without_a_host_is_served_over_ipv4_and_ipv6(client: aiohttp.ClientSession) -> None:
    async with admin.serve(":0", CollectorRegistry(), ready=dict, streams=list) as server:
        port = split_address(server.address)[1]
        for host in ("127.0.0.1", "[::1]"):
            async with client.get(f"http://{host}:{port}/healthz") as answer:
                assert answer.status == 200


async def test_port_0_reports_the_port_that_the_system_chose(program: Program) -> None:
    host, port = split_address(program.url.removeprefix("http://"))
    assert host == "127.0.0.1"
    assert port > 0


async def test_metrics_are_text_or_openmetrics_as_the_client_asks(
    program: Program, client: aiohttp.ClientSession
) -> None:
    program.metrics.records.labels("http", "accepted").inc(3)
    async with client.get(f"{program.url}/metrics") as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        assert 'logfwd_records_total{state="accepted",stream="http"} 3.0' in await answer.text()
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    async with client.get(f"{program.url}/metrics", headers=accept) as answer:
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
        assert (await answer.text()).endswith("# EOF\n")


async def test_readiness_is_503_with_reasons_while_there_are_any(
    program: Program, client: aiohttp.ClientSession
) -> None:
    async with client.get(f"{program.url}/readyz") as answer:
        assert (answer.status, await answer.json()) == (200, {"status": "ok"})
    program.ready["http"] = "the spool is damaged"
    async with client.get(f"{program.url}/readyz") as answer:
        assert answer.status == 503
        assert await answer.json() == {"status": "unavailable", "reasons": {"http": "the spool is damaged"}}


async def test_what_does_not_keep_a_program_from_its_work_is_said_and_fails_only_who_asks_strictly(
    program: Program, client: aiohttp.ClientSession
) -> None:
    program.degraded["config"] = "refused"
    async with client.get(f"{program.url}/readyz") as answer:
        assert (answer.status, await answer.json()) == (200, {"status": "ok", "degraded": {"config": "refused"}})
    async with client.get(f"{program.url}/readyz?strict") as answer:
        assert (answer.status, (await answer.json())["reasons"]) == (503, {"config": "refused"})
    async with client.get(f"{program.url}/api/v1/streams") as answer:
        assert (await answer.json())["trouble"] == {"config": "refused"}
    program.ready["http"] = "the spool is damaged"
    async with client.get(f"{program.url}/readyz") as answer:
        assert (answer.status, len((await answer.json())["reasons"])) == (503, 2)


async def test_health_says_that_the_loop_runs_whatever_is_wrong(
    program: Program, client: aiohttp.ClientSession
) -> None:
    program.ready["http"] = "the spool is damaged"
    async with client.get(f"{program.url}/healthz") as answer:
        assert (answer.status, await answer.json()) == (200, {"status": "ok"})


async def test_streams_are_json_with_program_time_and_reasons(program: Program, client: aiohttp.ClientSession) -> None:
    program.ready["http"] = "the spool is damaged"
    before = time.time()
    async with client.get(f"{program.url}/api/v1/streams") as answer:
        answered = await answer.json()
    assert before - 0.001 <= answered.pop("now") <= time.time() + 0.001
    assert 0 < answered.pop("started") <= before + 0.001
    assert answered == {
        "program": "logfwd",
        "host": socket.gethostname(),
        "version": importlib.metadata.version("logfwd"),
        "trouble": {"http": "the spool is damaged"},
        "streams": [{"stream": "http", "records": {"accepted": 3}}],
    }


async def test_batch_durations_are_those_after_a_count(program: Program, client: aiohttp.ClientSession) -> None:
    for seconds in (0.5, 0.25, 0.125):
        program.metrics.batch_duration.labels("http", "hybrid").observe(seconds)
    for query, expected in (("", [0.5, 0.25, 0.125]), ("?since=2", [0.125]), ("?since=9", [])):
        async with client.get(f"{program.url}/api/v1/streams/http/batch-durations{query}") as answer:
            assert await answer.json() == {"count": 3, "seconds": expected}


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("none/batch-durations", 404),
        *((f"http/batch-durations?since={bad}", 400) for bad in ("-1", "x", "²", "9" * 99)),
    ],
)
async def test_batch_durations_of_an_unknown_stream_or_since_a_wrong_count_are_refused(
    program: Program, client: aiohttp.ClientSession, query: str, status: int
) -> None:
    async with client.get(f"{program.url}/api/v1/streams/{query}") as answer:
        assert answer.status == status


@pytest.mark.parametrize(
    ("path", "kind"),
    [(path, kind) for path, (_, kind) in PAGE.items()],
)
async def test_the_policy_of_the_page_lets_it_run_nothing_else_and_ask_no_other_host(
    program: Program, client: aiohttp.ClientSession, path: str, kind: str
) -> None:
    for method in ("GET", "HEAD"):
        async with client.request(method, program.url + path) as answer:
            assert (answer.status, answer.content_type) == (200, kind)
            policy = dict(part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; "))
            assert policy.pop("default-src") == "'none'"
            assert policy.pop("require-trusted-types-for") == "'script'"
            assert set(policy.values()) == {"'self'", "'none'"}
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert bool(await answer.read()) is (method == "GET")


HOSTS = {
    "localhost": 200,
    "localhost:9464": 200,
    "LOCALHOST:1": 200,
    "127.0.0.1:80": 200,
    "127.8.8.8": 200,
    "[::1]:9464": 200,
    "rebound.example:9464": 421,
    "localhost.rebound.example": 421,
    "127.0.0.1.rebound.example": 421,
    "203.0.113.7:9464": 421,
    "[::1": 421,
    "": 421,
}


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("path", ["/", "/metrics", "/api/v1/streams"])
async def test_a_request_to_loopback_must_be_meant_for_it(
    program: Program, client: aiohttp.ClientSession, host: str, path: str
) -> None:
    async with client.get(program.url + path, headers={"Host": host}) as answer:
        assert answer.status == HOSTS[host]


async def test_any_host_is_accepted_if_the_operator_bound_more_than_loopback(client: aiohttp.ClientSession) -> None:
    async with admin.serve("0.0.0.0:0", CollectorRegistry(), ready=dict, streams=list) as server:
        _, port = split_address(server.address)
        async with client.get(f"http://127.0.0.1:{port}/healthz", headers={"Host": "logs.example"}) as answer:
            assert answer.status == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/none", 404), ("GET", "/page/../admin.py", 404), ("POST", "/metrics", 405), ("OPTIONS", "/", 405)],
)
async def test_nothing_else_is_served(
    program: Program, client: aiohttp.ClientSession, method: str, path: str, status: int
) -> None:
    async with client.request(method, program.url + path) as answer:
        assert answer.status == status


@pytest.mark.parametrize("head", [b"GET /" + b"a" * 9000, b"GET /metrics HTTP/1.1\r\nX: " + b"a" * 9000])
async def test_a_request_with_an_endless_head_is_refused(program: Program, head: bytes) -> None:
    host, port = split_address(program.url.removeprefix("http://"))
    async with asyncio.timeout(PATIENCE_SECONDS):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(head + b"\r\n\r\n")
        answer = await reader.readline()
        writer.close()
        await writer.wait_closed()
    assert answer.split()[1] in (b"400", b"414", b"431")


async def test_an_address_in_use_is_a_clear_error(program: Program) -> None:
    taken = program.url.removeprefix("http://")
    with pytest.raises(admin.AdminUnavailable, match=f"admin.address {taken}: cannot listen there: .*in use"):
        async with admin.serve(taken, CollectorRegistry(), ready=dict, streams=list):
            pass


async def test_there_is_no_answer_after_the_end(client: aiohttp.ClientSession) -> None:
    async with admin.serve("localhost:0", CollectorRegistry(), ready=dict, streams=list) as server:
        address = server.address
    with pytest.raises(aiohttp.ClientConnectionError):
        await client.get(f"http://{address}/healthz")


async def test_a_server_that_fails_is_said_and_started_again(
    client: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failures = application.make, [MemoryError("no more"), MemoryError("still no more")]

    def make(*arguments: Any) -> Callable[[], asyncio.Protocol]:
        if failures:
            raise failures.pop()
        return real(*arguments)

    monkeypatch.setattr(application, "make", make)
    monkeypatch.setattr(admin, "RETRY_SECONDS", 0.0)
    with capture_logs() as events:
        async with admin.serve("127.0.0.1:0", CollectorRegistry(), ready=dict, streams=list) as server:
            assert (await client.get(f"http://{server.address}/healthz")).status == 200
    assert [event["event"] for event in events] == ["admin failed", "admin failed"]


async def test_health_is_answered_while_the_program_is_busy_and_not_when_it_hangs(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, found = program.url.removeprefix("http://"), list[float]()
    assert await asyncio.to_thread(client_of_admin.ask, address, "/healthz")

    def look() -> None:
        started = time.monotonic()
        client_of_admin.ask(address, "/healthz")
        found.append(time.monotonic() - started)

    looking = asyncio.ensure_future(asyncio.to_thread(look))
    await asyncio.sleep(0)
    time.sleep(1.0)
    await looking
    assert found[0] < 0.5

    monkeypatch.setattr(adminthread, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(adminthread, "STUCK_SECONDS", 0.1)
    hanging = asyncio.ensure_future(asyncio.to_thread(client_of_admin.ask, address, "/healthz"))
    await asyncio.sleep(0)
    time.sleep(0.5)
    with pytest.raises(client_of_admin.NotAnswered, match="503"):
        await hanging


async def test_a_connection_too_many_ends_the_quietest(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adminthread, "MOST_CONNECTIONS", 3)
    host, port = split_address(program.url.removeprefix("http://"))
    opened = [await asyncio.open_connection(host, port) for _ in range(3)]

    async def ask(number: int) -> None:
        reader, writer = opened[number]
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200 OK\r\n")

    async with asyncio.timeout(PATIENCE_SECONDS):
        for number in (1, 2, 0):
            await ask(number)
        opened.append(await asyncio.open_connection(host, port))
        with contextlib.suppress(ConnectionResetError):
            assert await opened[1][0].read() == b""
        for number in (0, 2, 3):
            await ask(number)
    for _, writer in opened:
        writer.close()


async def test_connections_that_come_in_the_same_moment_are_no_more_than_there_may_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(adminthread, "MOST_CONNECTIONS", 3)
    connections, made, lost = adminthread.Connections(), list[asyncio.BaseTransport](), list[Exception | None]()

    class Served(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            made.append(transport)

        def connection_lost(self, error: Exception | None) -> None:
            lost.append(error)

    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: adminthread._Connection(Served(), connections), "127.0.0.1", 0)
    clients = [socket.create_connection(server.sockets[0].getsockname()) for _ in range(20)]
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(made) < 20 or len(lost) < 17:
            await asyncio.sleep(0)
    assert sum(transport.is_closing() for transport in made) == 17
    await connections.close()
    for client in clients:
        client.close()
    server.close()
