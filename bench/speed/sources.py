"""`logbench sources`: what records cost by the way they come in, compared with a file of JSON lines.

All inputs are streams of one forwarder and take turns, forwards and backwards (a b c, c b a, …): so neither the state
of the machine nor the differences between two processes of one program pass for a difference between inputs. A pair of
rounds gives one ratio; the interval comes from figures/bootstrap.py. After every few rounds all processes are
restarted, and the first round after each start is discarded.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from bench.figures import bootstrap, report
from bench.figures.measure import Usage, percentile
from bench.figures.provenance import provenance
from bench.lab.clients import Sender
from bench.lab.processes import StartFailed
from bench.lab.rig import Forwarder, Rig, Setup
from bench.speed.fullspeed import between_limits
from bench.speed.inputs import INPUTS, PLAIN, Input, Supply, inputs_of
from bench.speed.throughput import middle

WARM_UP_ROUNDS = 1
ROUNDS_A_START = 4
POLL_SECONDS = 0.2
QUIET_SECONDS = 20.0
"""Without progress for this long, the records that are missing will not come."""
DEFAULT_RECORDS = 200_000


def one_turn(rig: Rig, forwarder: Forwarder, each: Input, sender: Sender) -> dict[str, Any]:
    """Send one run's records; the clock runs from the first byte to the last write of the sink. Raises StartFailed."""
    sender.prepare()
    pids, before_records = rig.pids(forwarder), forwarder.records(names=[each.stream])
    before = {name: Usage.of(pid) for name, pid in pids.items()}
    started = time.time()
    sent = sender.send()
    stored = _stored(forwarder, each, before_records, sent.records)
    seconds = rig.stored_at([each.stream]) - started
    cpu = {name: Usage.of(pid).cpu_seconds - before[name].cpu_seconds for name, pid in pids.items()}
    row = forwarder.site.streams()[each.stream]
    if row["records"]["invalid"] or row["records"]["dropped"]:
        raise StartFailed(f"{each.title}: records were invalid or dropped: {row['records']}")
    megabytes = sent.content_bytes / sent.records * stored / 1e6
    return {
        "records": stored,
        "lost": sent.records - stored,
        "megabytes": megabytes,
        "seconds": seconds,
        "records_per_second": stored / seconds,
        "megabytes_per_second": megabytes / seconds,
        "cpu_seconds_per_gb": {name: max(value, 0.01) / megabytes * 1e3 for name, value in cpu.items()},
        "batch_duration_p50_ms": row["batch_duration_seconds"]["median"] * 1e3,
        "batch_duration_p99_ms": row["batch_duration_seconds"]["p99"] * 1e3,
        **_answers(sent.answered_ms),
    }


def _stored(forwarder: Forwarder, each: Input, before: int, sent: int) -> int:
    """Wait until everything is acknowledged, or nothing more comes; how many records were."""
    stored, since = 0, time.monotonic()
    while stored < sent:
        time.sleep(POLL_SECONDS)
        if (now := forwarder.records(names=[each.stream]) - before) != stored:
            stored, since = now, time.monotonic()
        elif time.monotonic() - since > QUIET_SECONDS:
            break
    if stored != sent and not (each.loses and 0 < stored < sent):
        raise StartFailed(f"{each.title}: {stored} of {sent} records are stored\n{forwarder.program.tail()}")
    return stored


def _answers(answered_ms: Sequence[float]) -> dict[str, float]:
    if not answered_ms:
        return {}
    return {"answered_p50_ms": percentile(answered_ms, 0.5), "answered_p99_ms": percentile(answered_ms, 0.99)}


def _some_rounds(
    directory: Path, sink: str, supply: Supply, rounds: int, runs: Mapping[Input, list[dict[str, Any]]]
) -> None:
    """Start everything, and let the inputs take turns."""
    with tempfile.TemporaryDirectory(dir=directory) as place, Rig(Path(place) / "rig", sink=sink) as rig:
        tables = tuple((each.stream, each.toml(Path(place))) for each in runs)
        size = 3 * sum(supply.file(each).size for each in runs if each.kind == "file")
        with rig.forwarder(Setup(tables=tables, input_bytes=size)) as forwarder:
            senders = {each: supply.sender(each, forwarder) for each in runs}
            for number in range(rounds + WARM_UP_ROUNDS):
                for each in list(senders)[:: -1 if number % 2 else 1]:
                    run = one_turn(rig, forwarder, each, senders[each])
                    if number >= WARM_UP_ROUNDS:
                        runs[each].append(run)


def compared(each: Input, done: Sequence[Mapping[str, Any]], plain: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The medians of one input, and the ratio of its CPU per GB to the plain file's over the rounds."""
    cpu = [[run["cpu_seconds_per_gb"]["forwarder"] for run in side] for side in (plain, done)]
    return {
        **middle([dict(run) for run in done]),
        "input": each.stream,
        "title": each.title,
        "goal": each.most,
        "ratio": bootstrap.ratio(*cpu)._asdict(),
        "rounds": list(done),
    }


def _losses(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [f"{row['title']}: {row['lost']:,.0f} lost, {row['records']:,.0f} stored" for row in rows if row["lost"]]


def _pair(row: Mapping[str, Any], first: str, second: str) -> str:
    return f"{row[first]:.1f} / {row[second]:.1f}" if first in row else ""


COLUMNS: Sequence[report.Column] = (
    ("input", lambda r: escape(r["title"])),
    ("records/s", lambda r: f"{r['records_per_second']:,.0f}"),
    ("MB/s", lambda r: f"{r['megabytes_per_second']:.0f}"),
    ("CPU-s/GB", lambda r: f"{r['cpu_seconds_per_gb']['forwarder']:.2f}"),
    ("ratio [95 %]", lambda r: "1" if r["input"] == PLAIN.stream else bootstrap.Estimate(**r["ratio"]).text()),
    ("goal", lambda r: f"≤ {r['goal']:.2f}" if r["goal"] else ""),
    ("batch, ms", lambda r: _pair(r, "batch_duration_p50_ms", "batch_duration_p99_ms")),
    ("answer, ms", lambda r: _pair(r, "answered_p50_ms", "answered_p99_ms")),
)


@click.command(short_help="Compare what inputs cost: files, HTTP, syslog.")
@click.option(
    "--input",
    "chosen",
    type=click.Choice([each.stream for each in INPUTS if each is not PLAIN]),
    multiple=True,
    help="Measure only this input beside the file; repeat it for several.  [default: all]",
)
@click.option(
    "--rounds",
    type=click.IntRange(2),
    default=8,
    show_default=True,
    help="Runs of each input; more rounds narrow the intervals.",
)
@click.option(
    "--records",
    type=click.IntRange(1000, 500_000),
    default=DEFAULT_RECORDS,
    show_default=True,
    help="Records per run; syslog gets a fifth of them, one-record requests a fiftieth.",
)
@click.option(
    "--body-bytes", type=report.Size(), default="256KiB", show_default=True, help="Least size of a large HTTP body."
)
@report.record_bytes_option
@report.seed_option
@click.option(
    "--sink",
    type=click.Choice(["log", "kafka"]),
    default="log",
    show_default=True,
    help="log: the receiver's embedded log; kafka: a real broker, started for this run.",
)
@report.as_json_option
def sources(
    chosen: tuple[str, ...],
    rounds: int,
    records: int,
    body_bytes: int,
    record_bytes: int,
    seed: int,
    sink: str,
    as_json: bool,
) -> None:
    """Records/s, CPU and time to the acknowledgement of each input, beside a file of JSON lines.

    \b
    json                  a file of JSON lines: what the others are compared with
    add, headers, path    the same with [add], [headers], path_field
    raw, text             a file in this format
    cri, docker           container logs whose lines hold JSON; cri-text, docker-text: plain text
    http, http-key        requests with many records over 8 connections; with an Idempotency-Key each
    http-gzip             the same, compressed
    http-one              requests with one record each over 16 connections: records/s are requests/s
    tcp, udp, unix        syslog messages of RFC 5424 over one socket

    All are streams of one forwarder with its spool on disk, and take turns. CPU-s/GB is the forwarder's CPU per GB of
    what the records say, without the lines and messages that container runtimes and syslog put around it. The ratio
    compares it with the file's, with a 95 % interval; if it includes 1, this many rounds show no difference.

    "batch" is the time from sealing a batch until the receiver has stored it, "answer" the time from a request to its
    200, when its records are durable in the spool; both p50 / p99.

    Takes about ten minutes with the defaults.
    """
    runs: dict[Input, list[dict[str, Any]]] = {each: [] for each in inputs_of(chosen)}
    with report.workplace(as_json) as (directory, console):
        base, _ = report.base_file(directory, console, records, seed=seed, record_bytes=record_bytes)
        supply = Supply(directory, base, body_bytes)
        with between_limits(base) as limits:
            for done in range(0, rounds, ROUNDS_A_START):
                with console.status(f"{done} of {rounds} rounds"):
                    _some_rounds(directory, sink, supply, min(ROUNDS_A_START, rounds - done), runs)
    rows = [compared(each, done, runs[PLAIN]) for each, done in runs.items()]
    if as_json:
        report.emit("sources", rows, sink=sink, limit_megabytes_per_second=limits, provenance=provenance(seed))
        return
    notes = [*_losses(rows), report.limit_note(limits)]
    title = f"{base.records:,} records of {record_bytes} bytes into {sink}, median of {rounds} rounds"
    report.show(console, title, COLUMNS, rows, notes)
