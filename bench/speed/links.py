"""`logbench links`: many forwarders with small batches against one receiver.

This process plays the forwarders: one asyncio task per link, over the same TLS and the same protocol core as `logfwd`,
each with a forwarder id and a producer id of its own. A link sends its next batch when the last one is acknowledged, so
there are as many batches in flight as links. Driver and receiver share the machine: judge the receiver by its CPU per
batch; batches/s are those of this machine with the driver on it, whose CPU is reported next to the receiver's.
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Sequence
from itertools import count
from typing import Any

import click
import uvloop

from bench.figures import report
from bench.figures.measure import Usage, percentile
from bench.lab.generate import generate_http
from bench.lab.newlinks import credentials
from bench.lab.processes import StartFailed
from bench.lab.rig import Rig
from streams.errors import PipelineError
from streams.records import batch as recordbatch
from streams.security import stacks
from streams.security.connecting import connect
from streams.security.modes import MODES
from streams.security.transport import Link
from streams.telemetry import client
from streams.wire import messages as m
from streams.wire.connection import ForwarderConnection

HANDSHAKES_AT_A_TIME = 16
WARM_UP_SECONDS = 1.0
ANSWER_SECONDS = 60.0
LIMITS = '[limits]\nmax_links = 20000\nmax_links_per_identity = 20000\nhandshake = "1m"\nhello = "1m"\n'

_ids = count()


class Peer:
    """One forwarder's link: `open`, then one batch after the other."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._wire = ForwarderConnection()
        self._seq = self._sequence = 0
        self._producer_id = -1

    async def open(self, mode: str, stream: str = "links") -> None:
        """Say HELLO and open a run."""
        name = f"driver-{next(_ids)}"
        await self._ask(m.Hello(m.VERSION, name, name, stream, mode))
        run = await self._ask(m.OpenRun(0))
        if not isinstance(run, m.Run):
            raise StartFailed(f"no run: {run}")
        self._producer_id = run.producer_id

    async def send(self, batch: bytes, records: int) -> None:
        """Stamp and send one batch, and wait until it is stored."""
        stamped = recordbatch.stamp(
            batch, producer_id=self._producer_id, producer_epoch=0, base_sequence=self._sequence
        )
        answer = await self._ask(m.Batch(self._seq, 0, records, memoryview(stamped)))
        if not isinstance(answer, m.Ack):
            raise StartFailed(f"not acknowledged: {answer}")
        self._seq, self._sequence = self._seq + 1, self._sequence + records

    async def _ask(self, message: m.Message) -> m.Message:
        self._link.write(*self._wire.send(message))
        async with asyncio.timeout(ANSWER_SECONDS):
            while data := await self._link.receive():
                for event in self._wire.receive_data(data):
                    if isinstance(event, m.Ping):
                        self._link.write(*self._wire.send(m.Pong(event.token)))
                    else:
                        return event
        raise StartFailed("the receiver closed a link")

    async def close(self) -> None:
        await self._link.close()


async def drive(rig: Rig, links: int, seconds: float, batch: bytes, records: int, mode: str) -> dict[str, Any]:
    """Open `links` links, then send on all of them for a while."""
    party = stacks.client(MODES[mode], credentials(rig.site.directory / "pki", "forwarder"))
    gate = asyncio.Semaphore(HANDSHAKES_AT_A_TIME)

    async def make() -> Peer:
        async with gate:
            peer = Peer(await connect(rig.addresses[mode], party, server_name="localhost", handshake_timeout=60))
            await peer.open(mode)
            return peer

    pid, opening = rig.receiver.pid, time.perf_counter()
    empty = Usage.of(pid)
    peers = await asyncio.gather(*(make() for _ in range(links)))
    opened, open_seconds = Usage.of(pid), time.perf_counter() - opening
    await _send_all(peers, batch, records, WARM_UP_SECONDS)
    before, driver, started = Usage.of(pid), time.process_time(), time.perf_counter()
    durations = await _send_all(peers, batch, records, seconds)
    passed, after = time.perf_counter() - started, Usage.of(pid)
    driver_share = (time.process_time() - driver) / passed
    await asyncio.to_thread(_scrape, rig)  # the first one imports the HTTP server
    scrape = await asyncio.to_thread(_scrape, rig)
    await asyncio.gather(*(peer.close() for peer in peers))
    cpu = after.cpu_seconds - before.cpu_seconds
    return {
        "links": links,
        "links_opened_per_second": links / open_seconds,
        "receiver_cpu_ms_per_link": (opened.cpu_seconds - empty.cpu_seconds) / links * 1e3,
        "batches": len(durations),
        "batches_per_second": len(durations) / passed,
        "receiver_cpu_ms_per_batch": cpu / len(durations) * 1e3,
        "receiver_core_share": cpu / passed,
        "driver_core_share": driver_share,
        "receiver_rss_mb": after.rss_mb,
        "receiver_rss_kb_per_link": (after.rss_mb - empty.rss_mb) / links * 1e3,
        "answer_p50_ms": percentile(durations, 0.5) * 1e3,
        "answer_p99_ms": percentile(durations, 0.99) * 1e3,
        **scrape,
    }


def _scrape(rig: Rig) -> dict[str, float]:
    """How many series the receiver has in /metrics, and how long a scrape takes."""
    started = time.perf_counter()
    lines = (client.ask(rig.receiver.admin_address(), "/metrics", seconds=ANSWER_SECONDS) or b"").splitlines()
    return {
        "metric_series": sum(not line.startswith(b"#") for line in lines),
        "scrape_ms": (time.perf_counter() - started) * 1e3,
    }


async def _send_all(peers: Sequence[Peer], batch: bytes, records: int, seconds: float) -> list[float]:
    """Send on every link for this long; returns the seconds until acknowledged of every batch."""
    until, durations = time.perf_counter() + seconds, []

    async def keep_sending(peer: Peer) -> None:
        while (started := time.perf_counter()) < until:
            await peer.send(batch, records)
            durations.append(time.perf_counter() - started)

    await asyncio.gather(*(keep_sending(peer) for peer in peers))
    return durations


COLUMNS: Sequence[report.Column] = (
    ("links", lambda r: f"{r['links']:,}"),
    ("batches/s", lambda r: f"{r['batches_per_second']:,.0f}"),
    ("receiver CPU per batch, ms", lambda r: f"{r['receiver_cpu_ms_per_batch']:.3f}"),
    ("acknowledged after p50 / p99, ms", lambda r: f"{r['answer_p50_ms']:.1f} / {r['answer_p99_ms']:.1f}"),
    ("receiver RSS, MB", lambda r: f"{r['receiver_rss_mb']:.0f}"),
    ("RSS per link, kB", lambda r: f"{r['receiver_rss_kb_per_link']:.0f}"),
    ("series in /metrics", lambda r: f"{r['metric_series']:,}"),
    ("links opened/s", lambda r: f"{r['links_opened_per_second']:,.0f}"),
    ("receiver CPU per link opened, ms", lambda r: f"{r['receiver_cpu_ms_per_link']:.2f}"),
    ("cores: receiver / driver", lambda r: f"{r['receiver_core_share']:.2f} / {r['driver_core_share']:.2f}"),
)


@click.command(short_help="Measure one receiver under 1 to 1000 links.")
@click.option(
    "--links",
    "counts",
    type=report.Numbers(1, 10_000),
    default="1,10,100,1000",
    show_default=True,
    help="Numbers of links, separated by commas; each is measured against a fresh receiver.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.5),
    default=10.0,
    show_default=True,
    help="How long to send with each number of links.",
)
@click.option(
    "--batch-records",
    type=click.IntRange(1, 1000),
    default=10,
    show_default=True,
    help="Records of 577 bytes per batch.",
)
@click.option(
    "--mode",
    type=click.Choice(list(MODES)),
    default="hybrid",
    show_default=True,
    help="Security mode of the links.",
)
@report.sink_option
@report.as_json_option
def links(counts: list[float], seconds: float, batch_records: int, mode: str, sink: str, as_json: bool) -> None:
    """Small batches over many links to one receiver: batches/s, CPU per batch, memory per link.

    Each number of links is measured against a fresh receiver; all links write to one topic with one partition, each
    with one batch in flight. The receiver's limits on links are raised for this. This process simulates the forwarders
    and takes its share of the machine, so judge the receiver by its CPU per batch rather than by batches/s.

    Takes about a minute and a half with the defaults. Each link needs an open file in both processes (`ulimit -Hn`).
    """
    numbers = [int(number) for number in counts]
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # the receiver inherits it
    batch = recordbatch.build(
        list(generate_http(batch_records, 1)), timestamp_ms=int(time.time() * 1000), codec=recordbatch.Codec.ZSTD
    )
    rows = []
    with report.workplace(as_json) as (directory, console), Rig(directory, sink=sink, modes=[mode], more=LIMITS) as rig:
        for number in numbers:
            with console.status(f"{number} links"):
                rows.append(_one(rig, number, seconds, batch, batch_records, mode))
            rig.receiver.stop()
            rig.start_receiver()
    if as_json:
        report.emit("links", rows, sink=sink, mode=mode, batch_bytes=len(batch), batch_records=batch_records)
        return
    title = f"batches of {batch_records} records, {len(batch)} bytes, {mode}, into {sink}"
    report.show(console, title, COLUMNS, rows, upright=True)


def _one(rig: Rig, number: int, seconds: float, batch: bytes, records: int, mode: str) -> dict[str, Any]:
    try:
        return uvloop.run(drive(rig, number, seconds, batch, records, mode))
    except PipelineError as error:
        raise StartFailed(f"{number} links: {error}\n{rig.receiver.tail()}") from error
