"""Requests over HTTP: what is answered 200 is stored, what is refused is not, and every refusal says why."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import socket
import sqlite3
import subprocess
import sys
import threading
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import structlog
import zstandard

from logfwd.definition import SpoolLimits, Stream
from logfwd.forwarder import Forwarder
from logfwd.sources.http.settings import HttpSource
from logfwd.spool.backlog import Backlog
from logfwd.spool.notes import Notes
from streams.config.units import MIB
from tests.support.http_clients import NDJSON, Client, answer, curl, post, raw
from tests.support.installation import Installation, acknowledged, eventually, forwarding, found, lines, running
from tests.support.patience import PATIENCE_SECONDS

NOWHERE = "localhost:1"
"""A receiver that does not answer: what is stored stays in the spool."""
SOURCE = HttpSource(address="127.0.0.1:0")


class Served:
    """A forwarder that takes requests, and its address."""

    def __init__(self, installation: Installation, forwarder: Forwarder) -> None:
        self.installation, self.forwarder = installation, forwarder
        assert forwarder.listeners.http is not None
        self.address = forwarder.listeners.http.addresses[0]

    async def settled(self) -> None:
        await eventually(lambda: all(keeper.pipeline is not None for keeper in self.forwarder._keepers.values()))

    @property
    def url(self) -> str:
        return f"http://{self.address}/ingest/http"


@contextlib.asynccontextmanager
async def serving(installation: Installation, *streams: Stream, receiver: str = NOWHERE) -> AsyncIterator[Served]:
    config = installation.forwarder_config(receiver, *(streams or (installation.stream(source=SOURCE),)))
    async with forwarding(config) as forwarder:
        served = Served(installation, forwarder)
        await served.settled()
        yield served


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


@pytest.fixture
async def stored(installation: Installation) -> AsyncIterator[Served]:
    """With a receiver."""
    async with (
        running(installation.receiver_config()) as service,
        serving(installation, receiver=service.listeners[0].address) as served,
    ):
        yield served


@pytest.fixture
async def served(installation: Installation) -> AsyncIterator[Served]:
    """Without one."""
    async with serving(installation) as served:
        yield served


def body(*records: str) -> bytes:
    return "".join(f"{record}\n" for record in records).encode()


# -- what is stored ------------------------------------------------------------------------------------------------


async def test_curl_sends_lines_an_array_an_object_and_text(stored: Served) -> None:
    for content_type, data, accepted in (
        (NDJSON, '{"n":1}\n{"n":2}\n', 2),
        ("application/json", '[{"n":3}, {"n":4}]', 2),
        ("application/json", '{"n":5}', 1),
        ("text/plain", "six\nseven", 2),
    ):
        status, text = await curl(stored.url, "-H", f"Content-Type: {content_type}", "--data-binary", data)
        assert (status, json.loads(text)) == (200, {"accepted": accepted, "invalid": 0})
    expected = [f'{{"n":{number}}}' for number in range(1, 6)] + ['{"message":"six"}', '{"message":"seven"}']
    await eventually(lambda: stored.installation.stored() == expected)


async def test_curl_sends_large_and_compressed_bodies(stored: Served, tmp_path: Path) -> None:
    expected = lines(60_000)
    data = body(*expected)
    assert len(data) > 1 << 20, "curl waits for 100 Continue"
    (tmp_path / "body").write_bytes(data)
    (tmp_path / "body.gz").write_bytes(gzip.compress(data))
    (tmp_path / "body.zst").write_bytes(zstandard.compress(data))
    (tmp_path / "body.zz").write_bytes(zlib.compress(data))
    for name, coding in (("body", "identity"), ("body.gz", "gzip"), ("body.zst", "zstd"), ("body.zz", "deflate")):
        headers = ("-H", f"Content-Type: {NDJSON}", "-H", f"Content-Encoding: {coding}")
        status, text = await curl(stored.url, *headers, "--data-binary", f"@{tmp_path / name}")
        assert (status, json.loads(text)) == (200, {"accepted": 60_000, "invalid": 0})
    chunked = ("-H", "Transfer-Encoding: chunked", "-H", f"Content-Type: {NDJSON}")
    status, text = await curl(stored.url, *chunked, "--data-binary", "@-", stdin=data)
    assert (status, json.loads(text)) == (200, {"accepted": 60_000, "invalid": 0})
    await eventually(lambda: acknowledged(stored.forwarder) == 300_000, 30)
    assert stored.installation.stored() == expected * 5


async def test_one_connection_serves_many_requests_in_order(served: Served) -> None:
    requests = b"".join(
        b"POST /ingest/http HTTP/1.1\r\nHost: h\r\nContent-Type: application/x-ndjson\r\nContent-Length: %d\r\n\r\n%s"
        % (len(text), text)
        for text in (body(*lines(count)) for count in range(1, 21))
    )
    async with raw(served.address) as (reader, writer):
        writer.write(requests)
        for count in range(1, 21):
            assert (await answer(reader)).json == {"accepted": count, "invalid": 0}


@pytest.mark.parametrize("head", ["HTTP/1.0\r\n", "HTTP/1.1\r\nHost: h\r\nConnection: close\r\n"])
async def test_a_client_that_reads_to_the_end_of_the_connection_is_not_kept_waiting(served: Served, head: str) -> None:
    async with raw(served.address) as (reader, writer), asyncio.timeout(1):
        writer.write(f"POST /ingest/http {head}Content-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello".encode())
        assert (await reader.read()).endswith(b'{"accepted":1,"invalid":0}')


@pytest.mark.parametrize("count", [1, 3])
async def test_a_client_that_ends_its_side_after_its_requests_is_answered(served: Served, count: int) -> None:
    """As `nc -N` does: the connection is half-closed while the request is stored."""
    request = b"POST /ingest/http HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
    async with raw(served.address) as (reader, writer), asyncio.timeout(PATIENCE_SECONDS):
        writer.write(request * count)
        writer.write_eof()
        for _ in range(count):
            assert (await answer(reader)).json == {"accepted": 1, "invalid": 0}
        assert await reader.read() == b"", "the connection ends with its last answer"


async def test_a_client_that_ends_its_side_within_a_request_is_told(served: Served) -> None:
    async with raw(served.address) as (reader, writer), asyncio.timeout(PATIENCE_SECONDS):
        writer.write(b"POST /ingest/http HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhel")
        writer.write_eof()
        assert (await answer(reader)).status == 400
        assert await reader.read() == b""
    assert waiting_records(served) == 0


async def test_a_client_that_leaves_before_its_answer_changes_nothing(served: Served) -> None:
    async with raw(served.address) as (_, writer):
        writer.write(
            b"POST /ingest/http HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
        )
        await writer.drain()
    async with raw(served.address) as (_, writer):
        writer.write(
            b"POST /ingest/http HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhel"
        )
        await writer.drain()
    assert (await post(served.address, "http", b"{}\n")).status == 200
    assert waiting_records(served) == 2, "a request that did not come to its end stores nothing"


async def test_a_client_that_waits_for_each_answer_does_not_wait_for_linger(installation: Installation) -> None:
    slow = msgspec.structs.replace(
        installation.stream(source=SOURCE), batch=msgspec.structs.replace(Stream(name="x").batch, linger_seconds=10)
    )
    async with serving(installation, slow) as served, asyncio.timeout(8):

        def send() -> None:
            with Client(served.address) as client:
                for _ in range(20):
                    assert client.post("/ingest/http", b'{"a":1}\n').status == 200

        await asyncio.to_thread(send)


async def test_several_streams_share_an_address_and_a_unix_socket_works(
    installation: Installation, tmp_path: Path
) -> None:
    address = f"unix:{tmp_path}/in.sock"
    source = HttpSource(address=address)
    streams = [Stream(name="http", source=source), Stream(name="other", source=source, invalid="drop")]
    async with serving(installation, *streams) as served:
        assert (await post(address, "http", b"no\n")).json == {"accepted": 1, "invalid": 1}
        assert (await post(address, "other", b"no\n")).json == {"accepted": 0, "invalid": 1}
        status, _ = await curl(
            "--unix-socket", f"{tmp_path}/in.sock", "http://h/ingest/other", "-H", "Content-Type: text/plain", "-d", "x"
        )
        assert status == 200
        assert (tmp_path / "in.sock").stat().st_mode & 0o777 == 0o660
        assert served.address == address


async def test_200_comes_after_the_commit_and_not_before(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, commit = threading.Event(), Notes.carry_out

    def carry_out(notes: Notes, connection: object) -> None:
        gate.wait(PATIENCE_SECONDS)
        commit(notes, connection)  # type: ignore[arg-type]

    monkeypatch.setattr(Notes, "carry_out", carry_out)
    request = asyncio.create_task(post(served.address, "http", b'{"a":1}\n'))
    done, _ = await asyncio.wait({request}, timeout=0.3)
    assert not done
    gate.set()
    assert (await request).status == 200


# -- keys ----------------------------------------------------------------------------------------------------------


def waiting_records(served: Served) -> int:
    return sum(row["spool"]["records"] for row in served.forwarder.describe())


async def test_a_repeat_gets_the_first_answer_and_stores_nothing(served: Served) -> None:
    text = body('{"a":1}', "no", '{"a":2}')
    first = await post(served.address, "http", text, idempotency_key="k")
    again = await post(served.address, "http", gzip.compress(text), idempotency_key="k", content_encoding="gzip")
    assert (first.status, first.json) == (again.status, again.json) == (200, {"accepted": 3, "invalid": 1})
    assert again.headers["idempotent-replayed"] == "true"
    assert waiting_records(served) == 3
    assert (await post(served.address, "http", text, idempotency_key="other")).json == first.json
    assert waiting_records(served) == 6


async def test_another_body_with_the_same_key_is_refused(served: Served) -> None:
    assert (await post(served.address, "http", b'{"a":1}\n', idempotency_key="k")).status == 200
    for changed in (b'{"a":2}\n', b'{"a":1}\n{"a":2}\n', b'{"a":1}', b""):
        reply = await post(served.address, "http", changed, idempotency_key="k")
        assert (reply.status, reply.json["code"]) == (422, "key_reused")
    other_type = await post(served.address, "http", b'{"a":1}\n', idempotency_key="k", content_type="text/plain")
    assert other_type.status == 422
    assert waiting_records(served) == 1


async def test_repeats_at_the_same_time_store_the_body_once(served: Served) -> None:
    text = body(*lines(5000))
    replies = await asyncio.gather(*(post(served.address, "http", text, idempotency_key="k") for _ in range(10)))
    assert [reply.json for reply in replies] == [{"accepted": 5000, "invalid": 0}] * 10
    assert sum("idempotent-replayed" in reply.headers for reply in replies) == 9
    assert waiting_records(served) == 5000


async def test_an_empty_body_uses_its_key_too(served: Served) -> None:
    for _ in range(2):
        reply = await post(served.address, "http", b"", idempotency_key="k")
        assert reply.json == {"accepted": 0, "invalid": 0}
    assert reply.headers["idempotent-replayed"] == "true"
    assert (await post(served.address, "http", b"{}\n", idempotency_key="k")).status == 422


async def test_keys_outlive_a_restart_and_end_with_their_window_or_number(installation: Installation) -> None:
    source = HttpSource(address="127.0.0.1:0", key_window_seconds=1.0, max_keys=3)
    long = HttpSource(address="127.0.0.1:0", max_keys=3)
    async with serving(installation, installation.stream(source=long)) as served:
        assert (await post(served.address, "http", b"{}\n", idempotency_key="k")).status == 200
    async with serving(installation, installation.stream(source=long)) as served:
        reply = await post(served.address, "http", b"{}\n", idempotency_key="k")
        assert reply.headers["idempotent-replayed"] == "true"
        for number in range(4):
            await post(served.address, "http", b"{}\n", idempotency_key=f"k{number}")
        evicted = served.forwarder.registry.get_sample_value("logfwd_evicted_keys_total", {"stream": "http"})
        assert evicted is not None
        assert evicted >= 1
        assert "idempotent-replayed" not in (await post(served.address, "http", b"{}\n", idempotency_key="k")).headers
    async with serving(installation, installation.stream(source=source)) as served:
        await post(served.address, "http", b"{}\n", idempotency_key="short")
        await asyncio.sleep(1.1)
        reply = await post(served.address, "http", b"{}\n", idempotency_key="short")
        assert "idempotent-replayed" not in reply.headers


# -- refusals ------------------------------------------------------------------------------------------------------


async def test_a_stream_that_refuses_invalid_records_stores_nothing_of_such_a_body(installation: Installation) -> None:
    async with serving(installation, installation.stream(source=SOURCE, invalid="refuse")) as served:
        bad = body(*lines(30_000), "no", *lines(10))
        reply = await post(served.address, "http", bad, idempotency_key="k")
        assert (reply.status, reply.json["code"], reply.json["index"]) == (400, "invalid_record", 30_000)
        assert waiting_records(served) == 0
        good = await post(served.address, "http", body(*lines(10)), idempotency_key="k")
        assert good.json == {"accepted": 10, "invalid": 0}, "a refused body leaves no key"


async def test_every_refusal_has_its_status_and_leaves_the_connection_usable(served: Served) -> None:
    def send() -> None:
        with Client(served.address) as client:
            for path, headers, text, status, code in (
                ("/ingest/none", {}, b"x", 404, "not_found"),
                ("/", {}, b"", 404, "not_found"),
                ("/ingest/http", {"content_type": "text/html"}, b"x", 415, "unsupported"),
                ("/ingest/http", {"content_encoding": "br"}, b"x", 415, "unsupported"),
                ("/ingest/http", {"content_encoding": "gzip"}, b"x", 400, "malformed"),
                ("/ingest/http", {"content_type": "application/json"}, b"x", 400, "malformed"),
                ("/ingest/http", {"idempotency_key": "x" * 256}, b"x", 400, "malformed"),
            ):
                reply = client.post(path, text, **headers)
                assert (reply.status, reply.json["code"]) == (status, code)
                assert "connection" not in reply.headers
                assert client.post("/ingest/http", b'{"a":1}\n').status == 200

    await asyncio.to_thread(send)


async def test_a_request_without_a_body_is_refused_and_leaves_the_connection_usable(served: Served) -> None:
    async with raw(served.address) as (reader, writer), asyncio.timeout(30):
        writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n" * 500)
        for _ in range(500):
            assert (await answer(reader)).status == 404


async def test_other_methods_are_refused(served: Served) -> None:
    def send() -> None:
        with Client(served.address) as client:
            for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS"):
                reply = client.post("/ingest/http", b"", method=method)
                assert (reply.status, reply.headers["allow"]) == (405, "POST")

    await asyncio.to_thread(send)


async def test_a_body_over_the_limit_is_refused_whether_announced_chunked_or_compressed(
    installation: Installation,
) -> None:
    source = HttpSource(address="127.0.0.1:0", max_body_bytes=MIB)
    async with serving(installation, installation.stream(source=source)) as served:
        large = b"x" * (2 * MIB)
        assert (await post(served.address, "http", large)).status == 413
        assert (await post(served.address, "http", iter([large[:1000]] * 3000))).status == 413
        assert (await post(served.address, "http", gzip.compress(large), content_encoding="gzip")).status == 413
        assert (await post(served.address, "http", large[:MIB], content_type="text/plain")).status == 200
    assert (
        served.forwarder.registry.get_sample_value("logfwd_http_requests_total", {"stream": "http", "code": "413"}) == 3
    )


async def test_a_token_is_asked_for_and_may_be_replaced_at_any_time(installation: Installation, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("# for the web servers\nfirst-token\n\nsecond-token\n")
    source = HttpSource(address="127.0.0.1:0", token_file=tokens)
    async with serving(installation, installation.stream(source=source)) as served:

        async def status(authorization: str) -> int:
            return (await post(served.address, "http", b"{}\n", authorization=authorization)).status

        for wrong in ("", "Bearer", "Bearer third-token", "Basic first-token", "Bearer # for the web servers"):
            reply = await post(served.address, "http", b"{}\n", authorization=wrong)
            assert (reply.status, reply.json["code"]) == (401, "unauthorised")
            assert reply.headers["www-authenticate"].startswith("Bearer")
        assert await status("Bearer first-token") == 200
        assert await status("bearer second-token") == 200
        tokens.write_text("third-token\n")
        assert await status("Bearer third-token") == 200
        assert await status("Bearer first-token") == 401
        tokens.unlink()
        assert await status("Bearer third-token") == 401


async def test_two_clients_may_use_the_same_key(installation: Installation, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("a\nb\n")
    source = HttpSource(address="127.0.0.1:0", token_file=tokens)
    async with serving(installation, installation.stream(source=source)) as served:
        for token in "ab":
            text = json.dumps({"from": token}).encode() + b"\n"
            reply = await post(served.address, "http", text, idempotency_key="1", authorization=f"Bearer {token}")
            assert reply.json == {"accepted": 1, "invalid": 0}


# -- pressure ------------------------------------------------------------------------------------------------------


async def test_a_full_spool_is_answered_429_and_what_was_answered_200_is_kept(installation: Installation) -> None:
    stream = installation.stream(source=SOURCE, spool=SpoolLimits(max_spool_bytes=16 * MIB), codec="none")
    async with serving(installation, stream) as served:
        text = body(*lines(40_000))
        accepted = 0
        while (reply := await post(served.address, "http", text)).status == 200:
            accepted += reply.json["accepted"]
            assert accepted < 10_000_000
        assert (reply.status, reply.json["code"], reply.headers["retry-after"]) == (429, "no_room", "1")
        assert waiting_records(served) == accepted
    async with (
        running(installation.receiver_config()) as service,
        serving(installation, stream, receiver=service.listeners[0].address) as served,
    ):
        await eventually(lambda: waiting_records(served) == 0, 30)
        assert len(installation.stored()) == accepted
        assert (await post(served.address, "http", text)).status == 200


async def test_what_a_spool_that_drops_could_not_keep_is_answered_503(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Backlog, "can_keep", lambda backlog, sizes: False)
    for key in ("", "k"):
        reply = await post(served.address, "http", b"{}\n", idempotency_key=key)
        assert (reply.status, reply.json["code"], reply.headers["retry-after"]) == (503, "not_stored", "1")
    monkeypatch.undo()
    reply = await post(served.address, "http", b"[]\n", idempotency_key="k")
    assert reply.json == {"accepted": 1, "invalid": 1}, "the key of what was refused is free"
    assert waiting_records(served) == 1


async def test_a_stream_whose_spool_cannot_be_opened_is_answered_503(installation: Installation) -> None:
    (installation.directory / "state" / "http.spool").mkdir(parents=True)
    config = installation.forwarder_config(NOWHERE, installation.stream(source=SOURCE))
    async with forwarding(config) as forwarder:
        reply = await post(Served(installation, forwarder).address, "http", b"{}\n")
        assert (reply.status, reply.json["code"], reply.headers["retry-after"]) == (503, "not_served", "1")


async def test_after_a_failed_commit_the_connection_is_closed_without_an_answer_and_a_key_makes_it_once(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, failing = Notes.carry_out, threading.Event()
    failing.set()

    def carry_out(notes: Notes, connection: sqlite3.Connection) -> None:
        if failing.is_set():
            raise sqlite3.OperationalError("disk I/O error")
        commit(notes, connection)

    monkeypatch.setattr(Notes, "carry_out", carry_out)
    with structlog.testing.capture_logs(), pytest.raises(ConnectionError):
        await post(served.address, "http", b'{"a":1}\n', idempotency_key="k")
    failing.clear()

    async def accepted() -> bool:
        reply = await post(served.address, "http", b'{"a":1}\n', idempotency_key="k")
        assert reply.status in (200, 503)
        return reply.status == 200

    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await accepted():
            await asyncio.sleep(0.05)
    assert waiting_records(served) == 1


# -- the end, reloads ------------------------------------------------------------------------------------------------


async def test_at_the_stop_requests_that_were_not_handed_over_are_refused_and_others_answered(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, commit = threading.Event(), Notes.carry_out
    gate.set()

    def carry_out(notes: Notes, connection: object) -> None:
        gate.wait(PATIENCE_SECONDS)
        commit(notes, connection)  # type: ignore[arg-type]

    monkeypatch.setattr(Notes, "carry_out", carry_out)
    async with contextlib.AsyncExitStack() as stack:
        served = await stack.enter_async_context(serving(installation))
        half, handed_over = [await stack.enter_async_context(raw(served.address)) for _ in range(2)]
        idle = await stack.enter_async_context(raw(served.address))
        gate.clear()
        start = b"POST /ingest/http HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\n"
        half[1].write(start + b"he")
        handed_over[1].write(start + b"hello")
        pipeline = served.forwarder._keepers["http"].pipeline
        assert pipeline is not None
        await eventually(lambda: pipeline.source.lag_bytes() > 0)
        stopping = asyncio.create_task(served.forwarder.__aexit__())
        reply = await answer(half[0])
        assert (reply.status, reply.json["code"], reply.headers["connection"]) == (503, "stopping", "close")
        assert await idle[0].read() == b""
        gate.set()
        reply = await answer(handed_over[0])
        assert (reply.status, reply.headers["connection"]) == (200, "close")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(served.address.rpartition(":")[2])))
        await stopping


async def test_a_reload_keeps_the_listener_and_its_connections(installation: Installation) -> None:
    async with serving(installation) as served:
        config = served.forwarder.config

        def replies(client: Client, count: int) -> list[int]:
            return [client.post("/ingest/http", b"{}\n").status for _ in range(count)]

        with Client(served.address) as client:
            assert await asyncio.to_thread(replies, client, 2) == [200, 200]
            changed = msgspec.structs.replace(
                config,
                streams=(
                    installation.stream(source=SOURCE, codec="none"),
                    Stream(name="second", source=msgspec.structs.replace(SOURCE)),
                ),
            )
            assert (await served.forwarder.reload(lambda: changed)).outcome == "taken"
            await served.settled()
            assert await asyncio.to_thread(replies, client, 2) == [200, 200]
            assert (await post(served.address, "second", b"{}\n")).status == 200
            gone = msgspec.structs.replace(
                config,
                streams=(installation.stream(), *changed.streams[1:]),  # "http" reads files now
            )
            assert (await served.forwarder.reload(lambda: gone)).outcome == "taken"
            assert await asyncio.to_thread(replies, client, 1) == [404]
            assert (await post(served.address, "second", b"{}\n")).status == 200


async def test_an_address_that_is_taken_is_not_ready_and_tried_again(installation: Installation) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, structlog.testing.capture_logs() as events:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        stream = installation.stream(source=HttpSource(address=address))
        async with forwarding(installation.forwarder_config(NOWHERE, stream)) as forwarder:
            assert list(forwarder._ready()) == [address]
            taken.close()
            await eventually(lambda: not forwarder._ready())
            assert (await post(address, "http", b"{}\n")).status == 200
    assert [event["event"] for event in events if event["event"].startswith("http list")] == [
        "http listener failed",
        "http listening",
    ]


async def test_an_insecure_listener_is_warned_of(installation: Installation) -> None:
    with structlog.testing.capture_logs() as events:
        stream = installation.stream(source=HttpSource(address="0.0.0.0:0", insecure=True))
        async with serving(installation, stream):
            pass
    (event,) = found(events, "insecure listener")
    assert event["log_level"] == "warning"


def test_a_forwarder_without_http_streams_does_not_load_the_library() -> None:
    check = "import sys, logfwd.cli, logfwd.forwarder; sys.exit('h11' in sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)
