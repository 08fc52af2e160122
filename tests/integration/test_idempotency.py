"""Idempotency keys at a forwarder that is a process: killed within a request, asked twice at a time, full."""

from __future__ import annotations

import contextlib
import http.client
import json
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.lab.site import Site
from logfwd.spool.committer import DIES_AT
from logreceiver.sinks.log.sink import read_records
from streams.telemetry import client
from tests.support.http_clients import Client, Reply
from tests.support.patience import PATIENCE_SECONDS

STREAM = "web"
SMALL_BATCHES = '[batch]\nmax_batch_bytes = "64KiB"\nmax_record_bytes = "64KiB"\n'


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path / "site") as site:
        site.make_pki()
        site.write_receiver('type = "log"\ndirectory = "log"', listeners={"localhost:0": '["hybrid"]'})
        site.write_forwarder(site.start_receiver())
        yield site


def serve(site: Site, more: str = "") -> None:
    path = site.directory / "in.sock"
    site.write_stream(STREAM, f'[source]\ntype = "http"\naddress = "unix:{path}"\n{more}')
    site.start_forwarder()
    site.forwarder.wait_for("http listening")


def post(site: Site, body: bytes, key: str) -> Reply:
    """One request, sent again while the stream starts."""
    with Client(f"unix:{site.directory / 'in.sock'}") as sender:
        while (reply := sender.post(f"/ingest/{STREAM}", body, idempotency_key=key)).status == 503:
            assert reply.json["code"] == "not_served"
        return reply


def lines(count: int) -> bytes:
    return b"".join(b'{"n":%d,"padding":"%b"}\n' % (number, b"x" * 60) for number in range(count))


def stored(site: Site) -> Counter[int]:
    assert site.wait_until_drained([STREAM], 60), site.streams()
    found = read_records(site.directory / "log", STREAM)
    return Counter(json.loads(bytes(record.value or b""))["n"] for record in found)


def progress(site: Site) -> int:
    """How much of the last request is in the spool of a forwarder that does not run."""
    with contextlib.closing(sqlite3.connect(site.directory / "state" / f"{STREAM}.spool")) as spool:
        found = spool.execute("SELECT progress FROM keys ORDER BY id DESC LIMIT 1").fetchone()
    return int(found[0]) if found is not None else 0


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_request_of_several_batches_killed_between_them_and_sent_again_is_stored_once(
    site: Site, moment: str
) -> None:
    """Killed at one of its commits after the other: each time more of it is there, and nothing is stored twice.

    The first commit is of the first batch alone, however fast disk and machine are; what comes after it is one or many.
    """
    body, seen = lines(20_000), list[int]()
    for commit in range(2 if moment == "before" else 1, 50):
        site.forwarder.environment = {DIES_AT: f"{moment} {commit}"}
        serve(site, SMALL_BATCHES)
        try:
            reply = post(site, body, "k")
            break
        except (OSError, http.client.HTTPException):
            assert site.forwarder.wait() < 0
            seen.append(progress(site))
    assert (reply.status, reply.json) == (200, {"accepted": 20_000, "invalid": 0})
    partial = [offset for offset in seen if 0 < offset < len(body)]
    assert partial, "it was never killed between two batches"
    assert partial == sorted(partial)
    site.forwarder.environment = {}
    site.forwarder.kill()
    serve(site, SMALL_BATCHES)
    again = post(site, body, "k")
    assert (again.json, again.headers["idempotent-replayed"]) == (reply.json, "true")
    assert stored(site) == Counter(range(20_000))


def test_repeats_at_the_same_time_store_it_once_and_another_body_is_refused(site: Site) -> None:
    serve(site)
    body, replies = lines(20_000), list[Reply]()
    bodies = [body] * 8 + [body + b"{}\n"]
    threads = [threading.Thread(target=lambda body=body: replies.append(post(site, body, "k"))) for body in bodies]
    for thread in threads[:8]:
        thread.start()
    for thread in threads[:8]:
        thread.join(60)
    assert [reply.json for reply in replies] == [{"accepted": 20_000, "invalid": 0}] * 8
    assert sum("idempotent-replayed" in reply.headers for reply in replies) == 7
    threads[8].start()
    threads[8].join(60)
    assert (replies[8].status, replies[8].json["code"]) == (422, "key_reused")
    assert stored(site) == Counter(range(20_000))


def test_beyond_max_keys_the_oldest_are_forgotten_and_counted(site: Site) -> None:
    serve(site, "max_keys = 5\n")
    for number in range(20):
        assert post(site, b'{"n":%d}\n' % number, f"k{number}").status == 200
    assert "idempotent-replayed" in post(site, b'{"n":19}\n', "k19").headers
    assert "idempotent-replayed" not in post(site, b'{"n":0}\n', "k0").headers, "it is stored once more, as documented"
    assert stored(site) == Counter(range(20)) + Counter([0])
    metrics = client.ask(site.admin_address, "/metrics", seconds=PATIENCE_SECONDS)
    assert metrics is not None
    (line,) = [each for each in metrics.decode().splitlines() if each.startswith("logfwd_evicted_keys_total{")]
    assert float(line.rpartition(" ")[2]) >= 15
