"""`logbench latency`: how old a record is when it is stored, and what it costs, from a lone one to near the maximum.

The load is open loop: record k is due at start + k / rate, and its age counts from then, so a pause of the writer, the
forwarder or the sink makes every record that had to wait for it older (no coordinated omission). The age ends when the
broker appended the batch (LogAppendTime, whole milliseconds) or, for the embedded log, at the time in the ledger's
record of it. A stream has one partition and keeps its order, so the count of records before a batch says which records
it holds.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from bench.figures import report
from bench.figures.measure import Usage, ages_ms, percentile
from bench.lab.load import Base, Load
from bench.lab.processes import StartFailed, wait_until
from bench.lab.rig import LEDGER, Rig, Setup
from bench.speed.fullspeed import between_limits, maximum
from streams.records.batch import HEADER_BYTES, Header, parse_header

WARM_UP_SECONDS = 1.0
"""Records due before this are left out: the first ones wait for their new file to be found."""

Appended = tuple[float, int]
"""When a batch was stored (ms since the epoch), and its number of records."""


def headers(segment: Path, position: int = 0) -> Iterator[Header]:
    """The headers of the batches in a segment, from a position on; the last may be partly written."""
    size = segment.stat().st_size
    with segment.open("rb") as file:
        file.seek(position)
        while file.tell() + HEADER_BYTES <= size:
            header = parse_header(file.read(HEADER_BYTES))
            if header.record_count <= 0:  # preallocated space
                return
            yield header
            file.seek(header.size - HEADER_BYTES, 1)


def append_times(segment: Path) -> Iterator[Appended]:
    """The batches of a segment, from their headers alone; the topic has LogAppendTime."""
    for header in headers(segment):
        yield float(header.max_timestamp), header.record_count


def ledger_times(directory: Path, stream: str) -> Iterator[Appended]:
    """The batches of a stream in the embedded log, from the ledger."""
    from logreceiver.sinks.log.sink import read_records

    for record in read_records(directory, LEDGER):
        entry = msgspec.json.decode(record.value or b"{}")
        if entry.get("kind") == "batch" and entry["stream"] == stream:
            yield float(entry["time_ms"]), entry["records"]


def stored(rig: Rig, stream: str, records: int) -> list[Appended]:
    """All batches of a stream in order, once they hold this many records; raises StartFailed if they never do."""
    found: list[Appended] = []

    def complete() -> bool:
        if rig.kafka is None:
            found[:] = ledger_times(rig.site.directory / "log", stream)
        else:
            found[:] = (each for path in sorted(rig.segments(stream)) for each in append_times(path))
        return sum(count for _, count in found) >= records

    if not wait_until(complete, 20) or sum(count for _, count in found) != records:
        raise StartFailed(f"{records} records were sent, {sum(count for _, count in found)} are in the sink")
    return found


@click.command(short_help="Measure the age of records when they are stored.")
@click.option(
    "--percent",
    "loads",
    type=report.Numbers(0.1, 1000),
    default="1,10,50,90",
    show_default=True,
    help="Offered loads, in % of the maximum measured first, separated by commas.",
)
@click.option(
    "--rate",
    "rates",
    type=report.Numbers(0.1, 1_000_000),
    help="Offered loads in records/s instead, separated by commas; no maximum is measured.",
)
@click.option("--seconds", type=click.FloatRange(2), default=20.0, show_default=True, help="Duration of each load.")
@click.option(
    "--linger", default="200ms", show_default=True, help="The stream's linger: longest wait before a batch is sealed."
)
@report.maximum_records_option
@report.record_bytes_option
@report.seed_option
@report.sink_option
@report.as_json_option
def latency(
    loads: list[float],
    rates: list[float] | None,
    seconds: float,
    linger: str,
    records: int,
    record_bytes: int,
    seed: int,
    sink: str,
    as_json: bool,
) -> None:
    """Age of records when they are stored, at offered loads given in percent of the maximum.

    Ages are in ms, as percentiles over all records. An age counts from the moment the record was due, not from when it
    was written, so that no waiting is left out. A record that comes when nothing was sealed for a linger is sealed at
    once, as with --rate 2; what follows gathers for the linger or until the batch is full. Batch duration is sealed →
    acknowledged, by the forwarder's own clock. CPU is that of forwarder / receiver / broker, in % of a core.

    Takes about two minutes with the defaults.
    """
    most: dict[str, Any] | None = None
    rows: list[dict[str, Any]] = []
    with report.workplace(as_json) as (directory, console), Rig(directory, sink=sink) as rig:
        base, copies = report.base_file(directory, console, records, seed=seed, record_bytes=record_bytes)
        with between_limits(base) as limits:
            if rates is None:
                with console.status("measuring the maximum"), rig.forwarder(Setup()) as forwarder:
                    most = maximum(rig, forwarder, base, copies)
                rates = [max(most["records_per_second"] * part / 100, 1.0) for part in loads]
            for rate in rates:
                with console.status(f"{rate:,g} records/s"):
                    rows.append(_offer(rig, base, rate, seconds, linger))
        if most is not None:
            rows = [{"percent": part, **row} for part, row in zip(loads, rows, strict=True)]
    if as_json:
        report.emit("latency", rows, maximum=most, limit_megabytes_per_second=limits, linger=linger, sink=sink)
        return
    title = f"age of records in {sink}, linger {linger}"
    if most is not None:
        title += f"; maximum {most['records_per_second']:,.0f} records/s"
    notes = ["writer late: the longest time that a record waited to be written; it is part of the age"]
    report.show(console, title, COLUMNS, rows, [*notes, report.limit_note(limits)])


def _offer(rig: Rig, base: Base, rate: float, seconds: float, linger: str) -> dict[str, Any]:
    """One load for a while, through a forwarder of its own."""
    setup = Setup(append_time=True, more=f'[batch]\nlinger = "{linger}"\n')
    with rig.forwarder(setup) as forwarder:
        name, pids = forwarder.originals[0], rig.pids(forwarder)
        load = Load(base, forwarder.input(name) / "http.log", rate)
        load.start()
        time.sleep(WARM_UP_SECONDS)
        before, started = {each: Usage.of(pid) for each, pid in pids.items()}, time.monotonic()
        time.sleep(seconds)
        passed = time.monotonic() - started
        cpu = {each: (Usage.of(pid).cpu_seconds - before[each].cpu_seconds) / passed for each, pid in pids.items()}
        load.stop()
        forwarder.wait_for(load.sent, 60 + seconds)
        durations = forwarder.row()["batch_duration_seconds"]
        appended = stored(rig, name, load.sent)
        sizes = [header.size for path in rig.segments(name) for header in headers(path)]
    ages = ages_ms(appended, start_ms=load.start_ms, records_per_second=rate)[int(rate * WARM_UP_SECONDS) :]
    return {
        "offered_records_per_second": rate,
        "records": len(ages),
        **{f"age_{share}_ms": percentile(ages, part) for share, part in SHARES.items()},
        "batch_duration_p50_ms": durations["median"] * 1e3,
        "batch_duration_p99_ms": durations["p99"] * 1e3,
        "batches": len(sizes),
        "batches_per_second": len(sizes) / (seconds + WARM_UP_SECONDS),
        "bytes_per_record": sum(sizes) / load.sent,
        "core_shares": cpu,
        "writer_late_ms": load.behind_seconds * 1e3,
    }


SHARES = {"p50": 0.5, "p99": 0.99, "p99_9": 0.999, "max": 1.0}
COLUMNS: Sequence[report.Column] = (
    ("load", lambda r: f"{r['percent']:g} %" if "percent" in r else ""),
    ("records/s", lambda r: f"{r['offered_records_per_second']:,.6g}"),
    ("age p50", lambda r: f"{r['age_p50_ms']:.0f} ms"),
    ("p99", lambda r: f"{r['age_p99_ms']:.0f} ms"),
    ("batches/s", lambda r: f"{r['batches_per_second']:.1f}"),
    ("CPU, %", lambda r: " / ".join(f"{share * 100:.1f}" for share in r["core_shares"].values())),
    ("bytes a record", lambda r: f"{r['bytes_per_record']:.0f}"),
    ("batch duration p50", lambda r: f"{r['batch_duration_p50_ms']:.1f} ms"),
    ("p99", lambda r: f"{r['batch_duration_p99_ms']:.1f} ms"),
    ("writer late", lambda r: f"{r['writer_late_ms']:.0f} ms"),
)
