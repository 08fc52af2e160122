"""/metrics of both running programs, read by Prometheus' own parsers; and how many series links and streams make."""

from __future__ import annotations

import asyncio
import re
import resource
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry, generate_latest, openmetrics, parser
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import parser as openmetrics_parser

from bench.dashboard.catalogue import CATALOGUE
from bench.lab.generate import generate_http
from bench.lab.site import Site
from bench.speed.links import HANDSHAKES_AT_A_TIME, Peer
from logfwd.metrics import FORWARDER
from logreceiver.config import Limits
from logreceiver.links import conduct, hearing
from logreceiver.metrics import MAX_STREAM_LABELS, OTHER_STREAMS, RECEIVER
from logreceiver.service import Service
from logreceiver.sinks import Kind, Outcome
from logreceiver.status import NEWEST_LINKS
from streams.errors import Code
from streams.records import batch as recordbatch
from streams.security import stacks
from streams.security.connecting import connect
from streams.security.modes import MODES
from tests.support.installation import Installation, acknowledged, eventually, forwarding, lines, running
from tests.support.patience import PATIENCE_SECONDS

RECORDS = 3_000
FORMATS: dict[str, tuple[str, Callable[[str], Iterable[Metric]]]] = {
    "text/plain": ("text/plain; version=0.0.4", parser.text_string_to_metric_families),
    "application/openmetrics-text": (
        "application/openmetrics-text; version=1.0.0",
        openmetrics_parser.text_string_to_metric_families,
    ),
}


@dataclass
class Addresses:
    """Where the two programs serve their metrics."""

    logfwd: str
    logreceiver: str

    def families(self, program: str, form: str) -> dict[str, Metric]:
        """Scrape and parse; the parser raises ValueError for what the format forbids."""
        accept, parse = FORMATS[form]
        address = getattr(self, program)
        asking = urllib.request.Request(f"http://{address}/metrics", headers={"Accept": accept})
        with urllib.request.urlopen(asking, timeout=PATIENCE_SECONDS) as answer:
            assert answer.headers["Content-Type"].startswith(accept.partition(";")[0])
            return {family.name: family for family in parse(answer.read().decode())}


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Addresses]:
    """A stream and its twin under another mode have sent everything."""
    with Site(tmp_path_factory.mktemp("metrics") / "site") as site:
        site.make_pki()
        modes = '["hybrid", "classical"]'
        site.write_receiver('type = "log"\ndirectory = "log"', listeners={"127.0.0.1:0": modes})
        site.write_forwarder(site.start_receiver())
        site.write_stream("http", '[source]\ntype = "file"\npaths = ["http.log"]\n')
        site.write_stream("http-twin", 'security = "classical"\nmirror_of = "http"\n')
        (site.directory / "http.log").write_bytes(b"".join(line + b"\n" for line in generate_http(RECORDS, seed=3)))
        site.start_forwarder()
        assert site.wait_until_acknowledged(RECORDS, ["http", "http-twin"], seconds=30), site.forwarder.tail()
        yield Addresses(site.admin_address, site.receiver.admin_address())


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(("program", "own"), [("logfwd", FORWARDER), ("logreceiver", RECEIVER)])
def test_a_program_serves_what_the_catalogue_says(
    addresses: Addresses, program: str, own: tuple[Any, ...], form: str
) -> None:
    families = {name: each for name, each in addresses.families(program, form).items() if "process_" not in name}
    declared = {metric.name.removesuffix("_total"): metric for metric in CATALOGUE}
    assert {metric.name.removesuffix("_total") for metric in own} <= set(families) <= set(declared)
    for name, family in families.items():
        metric = declared[name]
        assert (family.type, family.documentation) == (metric.kind, metric.sentence)
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(metric.labels), sample
            assert sample.value >= 0, sample


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("program", ["logfwd", "logreceiver"])
def test_names_and_units_follow_prometheus(addresses: Addresses, program: str, form: str) -> None:
    for family in addresses.families(program, form).values():
        assert re.fullmatch(r"[a-z][a-z0-9_]*", family.name)
        assert not re.search(r"_(ms|millis|milliseconds|minutes|kb|mb|percent|created)$", family.name)
        assert family.unit in ("", "seconds", "bytes")
        assert family.name.endswith(family.unit)
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter"), sample


@pytest.mark.parametrize("form", FORMATS)
def test_both_ends_count_the_same_records_under_their_modes(addresses: Addresses, form: str) -> None:
    ends = {program: addresses.families(program, form) for program in ("logfwd", "logreceiver")}

    def value(program: str, family: str, name: str, **labels: str) -> float:
        (sample,) = [
            each
            for each in ends[program][family].samples
            if each.name == name and labels.items() <= each.labels.items()
        ]
        return sample.value

    for stream, mode in (("http", "hybrid"), ("http-twin", "classical")):
        acknowledged = {"stream": stream, "state": "acknowledged"}
        stored = {"stream": stream, "outcome": "stored"}
        assert value("logfwd", "logfwd_records", "logfwd_records_total", **acknowledged) == RECORDS
        assert value("logreceiver", "logreceiver_records", "logreceiver_records_total", **stored) == RECORDS
        batches = value("logreceiver", "logreceiver_batches", "logreceiver_batches_total", **stored)
        durations = value(
            "logfwd", "logfwd_batch_duration_seconds", "logfwd_batch_duration_seconds_count", stream=stream
        )
        assert batches == durations > 0
        for program, role in (("logfwd", "forwarder"), ("logreceiver", "receiver")):
            one = {"stream": stream, "mode": mode, "group": MODES[mode].groups[0], "role": role}
            assert value(program, "tls_handshakes", "tls_handshakes_total", **one, result="ok") == 1
            assert value(program, "tls_handshake_seconds", "tls_handshake_seconds_count", **one) == 1
            peer = {"stream": stream, "mode": mode, "role": role, "authentication": "ecdsa_secp256r1_sha256"}
            assert value(program, "tls_authentications", "tls_authentications_total", **peer) == 1


async def test_a_batch_that_may_be_stored_is_counted_as_uncertain(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(installation.receiver_config()) as service:
        sink, first = service._shared.sink, [Outcome(Kind.UNCERTAIN, code=Code.TIMED_OUT)]
        store = sink.produce

        async def produce(topic: str, partition: int, batch: memoryview) -> Outcome:
            stored = await store(topic, partition, batch)
            return first.pop() if topic == "http" and first else stored

        monkeypatch.setattr(sink, "produce", produce)
        installation.append(*lines(3))
        async with forwarding(installation.forwarder_config(service.listeners[0].address)) as forwarder:
            await eventually(lambda: acknowledged(forwarder) == 3)
        outcomes = {
            outcome: service.registry.get_sample_value(
                "logreceiver_records_total", {"stream": "http", "outcome": outcome}
            )
            for outcome in ("uncertain", "refused")
        }
    assert outcomes == {"uncertain": 3, "refused": None}
    assert installation.stored() == lines(3)


async def test_a_twin_that_a_reload_removes_leaves_no_series(installation: Installation) -> None:
    async with running(installation.receiver_config()) as service:
        address, original = service.listeners[0].address, installation.stream()
        twin = installation.stream(name="pq-stream", mirror_of="http", source=None)
        async with forwarding(installation.forwarder_config(address, original, twin)) as forwarder:
            installation.append(*lines(3))
            await eventually(lambda: acknowledged(forwarder) == acknowledged(forwarder, "pq-stream") == 3)
            assert b'stream="pq-stream"' in generate_latest(forwarder.registry)
            assert (await forwarder.reload(lambda: installation.forwarder_config(address, original))).outcome == "taken"
            installation.append(*lines(3, 3))
            await eventually(lambda: acknowledged(forwarder) == 6)
            text = generate_latest(forwarder.registry).decode()
            assert 'stream="pq-stream"' not in text
            assert 'logfwd_records_total{state="acknowledged",stream="http"} 6.0' in text


# -- cardinality -------------------------------------------------------------------------------------------------


def series(registry: CollectorRegistry) -> int:
    """Lines of a scrape that hold a value."""
    text = openmetrics.exposition.generate_latest(registry).decode()  # type: ignore[no-untyped-call]
    return sum(not line.startswith("#") for line in text.splitlines())


async def open_links(installation: Installation, service: Service, streams: Iterable[str]) -> list[Peer]:
    """A link for each name, with one batch stored over it."""
    party = stacks.client(MODES["hybrid"], installation.parties.forwarder)
    batch = recordbatch.build([b"{}"], timestamp_ms=int(time.time() * 1000), codec=recordbatch.Codec.NONE)

    gate = asyncio.Semaphore(HANDSHAKES_AT_A_TIME)

    async def make(stream: str) -> Peer:
        async with gate:
            peer = Peer(await connect(service.listeners[0].address, party))
            await peer.open("hybrid", stream)
            await peer.send(batch, 1)
            return peer

    return await asyncio.gather(*map(make, streams))


@pytest.fixture
def many_files() -> Iterator[None]:
    """Both ends of all links are in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


LINKS = 200


@pytest.fixture
def unpaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """One identity opens as many runs as it likes: a receiver makes it wait after the first hundred."""
    monkeypatch.setattr(conduct.Conduct, "RUNS_AT_ONCE", 1000.0)


@pytest.mark.usefixtures("many_files", "unpaced")
async def test_hundreds_of_links_make_no_more_series_than_one(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hearing, "IDLE_SECONDS", 600.0)  # the first links say nothing while the last ones are made
    limits = Limits(max_links_per_identity=2000, handshake_seconds=PATIENCE_SECONDS, hello_seconds=PATIENCE_SECONDS)
    async with running(msgspec.structs.replace(installation.receiver_config(), limits=limits)) as service:
        peers = await open_links(installation, service, ["http"])
        before = series(service.registry)
        peers += await open_links(installation, service, ["http"] * (LINKS - 1))
        assert service.registry.get_sample_value(
            "logreceiver_links", {"stream": "http", "group": "X25519MLKEM768"}
        ) == len(peers)
        assert series(service.registry) == before
        await asyncio.gather(*(peer.close() for peer in peers))


@pytest.mark.usefixtures("unpaced")
async def test_streams_beyond_the_bound_share_their_series(installation: Installation) -> None:
    config = installation.receiver_config()
    config = msgspec.structs.replace(
        config,
        limits=Limits(max_links_per_identity=2000),
        allow=(msgspec.structs.replace(config.allow[0], topic="all"),),
    )
    async with running(config) as service:
        peers = await open_links(installation, service, [f"stream-{number}" for number in range(MAX_STREAM_LABELS + 1)])
        full = series(service.registry)
        peers += await open_links(installation, service, [f"late-{number}" for number in range(20)])
        assert series(service.registry) == full
        others = {"stream": OTHER_STREAMS, "outcome": "stored"}
        assert service.registry.get_sample_value("logreceiver_records_total", others) == 21
        row = next(row for row in service._streams() if row["stream"] == OTHER_STREAMS)
        assert (row["links"], len(row["newest_links"])) == (21, NEWEST_LINKS)
        await asyncio.gather(*(peer.close() for peer in peers))
