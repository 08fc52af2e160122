"""`logbench stuck`: Kafka is killed under full input and stays away; memory must stay flat and nothing may be lost.

A file larger than the spool's limit is there from the beginning, so the source always has more to read. The memory of
both programs, the spool and the unread rest of the file are sampled every second. Then Kafka comes back, everything
drains, and the oracle reads the topic.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from bench.figures import report
from bench.figures.measure import Usage, slope_per_minute
from bench.lab.feeder import numbered_lines
from bench.lab.kafka import Kafka
from bench.lab.oracle import Finding, OracleFailed, judge, read_topic
from bench.lab.processes import StartFailed
from bench.lab.site import Site

STREAM = "stuck"
INPUT_PER_SPOOL = 2.0
"""Size of the file as a multiple of the spool's limit: half of it has to wait there."""
LOOK_SECONDS = 1.0
DRAIN_SECONDS = 600.0
CHUNK_RECORDS = 10_000


@dataclass(frozen=True)
class Look:
    """One sample, sizes in MB (10⁶ bytes)."""

    seconds: float
    forwarder_rss: float
    receiver_rss: float
    spool_files: float
    waiting: float
    unread: float


MEMORY: tuple[Callable[[Look], float], ...] = (lambda look: look.forwarder_rss, lambda look: look.receiver_rss)


@dataclass(frozen=True)
class Outcome:
    """One run. `waits_logged`: how often the forwarder logged that the spool was full, so its source waits."""

    spool_limit_mb: float
    looks: list[Look]
    waits_logged: int
    finding: Finding

    def peak(self, size: Callable[[Look], float]) -> float:
        return max(map(size, self.looks))

    def slope(self, size: Callable[[Look], float]) -> float:
        """MB per minute over the second half of the run."""
        return slope_per_minute([(look.seconds, size(look)) for look in self.looks])

    @property
    def blocked(self) -> bool:
        """The source had more to read all the time, and the forwarder logged that it waits."""
        return self.waits_logged > 0 and self.looks[-1].unread > 0


def run(directory: Path, *, seconds: float, spool_mb: int, console: Console) -> Outcome:
    """One run with a Kafka and an installation of its own."""
    with Kafka(directory / "kafka") as kafka, Site(directory / "site") as site:
        source = site.directory / "in.log"
        sent = _write_input(source, int(spool_mb * 1e6 * INPUT_PER_SPOOL))
        _lay_out(site, kafka, spool_mb)
        kafka.kill()
        looks = _watch(site, source, seconds, console)
        waits_logged = sum(event.get("event") == "spool full" for event in site.forwarder.events())
        kafka.restart()
        with console.status("Kafka is back: draining"):
            if not site.wait_until_acknowledged(sent, [STREAM], DRAIN_SECONDS, poll_seconds=LOOK_SECONDS):
                raise StartFailed(f"not drained within {DRAIN_SECONDS:.0f} s\n{site.forwarder.tail()}")
        site.stop()
        return Outcome(
            spool_mb, looks, waits_logged, judge(STREAM, sent, read_topic(kafka.bootstrap, STREAM), source="in")
        )


def _write_input(path: Path, size: int) -> int:
    sent = 0
    with path.open("wb") as out:
        while out.tell() < size:
            out.write(b"".join(numbered_lines("in", sent, sent + CHUNK_RECORDS)))
            sent += CHUNK_RECORDS
    return sent


def _lay_out(site: Site, kafka: Kafka, spool_mb: int) -> None:
    site.make_pki()
    sink = f'type = "kafka"\nbrokers = ["{kafka.bootstrap}"]\ncreate_topics = true\nproduce_timeout = "10s"'
    site.write_receiver(sink, listeners={"localhost:0": '["hybrid"]'})
    site.write_forwarder(site.start_receiver(), more='answer_timeout = "15s"')
    text = (
        f'codec = "none"\n[source]\ntype = "file"\npaths = ["in.log"]\n[spool]\nmax_spool_bytes = {spool_mb * 10**6}\n'
    )
    site.write_stream(STREAM, text)
    site.start_forwarder()
    site.forwarder.wait_for("link opened")


def _watch(site: Site, source: Path, seconds: float, console: Console) -> list[Look]:
    looks: list[Look] = []
    started = time.monotonic()
    with console.status("Kafka is away") as status:
        while (passed := time.monotonic() - started) < seconds:
            row = site.streams()[STREAM]
            files = sum(file.stat().st_size for file in (site.directory / "state").iterdir())
            looks.append(
                Look(
                    passed,
                    Usage.of(site.forwarder.pid).rss_mb,
                    Usage.of(site.receiver.pid).rss_mb,
                    files / 1e6,
                    row["spool"]["bytes"] / 1e6,
                    row["source_lag_bytes"] / 1e6,
                )
            )
            status.update(f"Kafka is away for {passed:.0f} of {seconds:.0f} s")
            time.sleep(LOOK_SECONDS)
    return looks


COLUMNS: Sequence[report.Column] = (
    ("second", lambda r: r["second"]),
    ("forwarder RSS, MB", lambda r: r["forwarder_rss"]),
    ("receiver RSS, MB", lambda r: r["receiver_rss"]),
    ("spool files, MB", lambda r: r["spool_files"]),
    ("spooled, MB", lambda r: r["waiting"]),
    ("unread, MB", lambda r: r["unread"]),
)


def table(outcome: Outcome, rows: int = 12) -> Table:
    """Some of the samples, and how memory grew."""
    shown = [
        {"second": f"{look.seconds:.0f}", **{name: f"{value:.1f}" for name, value in asdict(look).items()}}
        for look in outcome.looks[:: max(len(outcome.looks) // rows, 1)]
    ]
    nothing = dict.fromkeys(asdict(outcome.looks[0]), "")
    names = ("forwarder_rss", "receiver_rss")
    peaks = {name: f"{outcome.peak(size):.1f}" for name, size in zip(names, MEMORY, strict=True)}
    slopes = {name: f"{outcome.slope(size):+.3f}" for name, size in zip(names, MEMORY, strict=True)}
    shown += [{**nothing, "second": "peak", **peaks}, {**nothing, "second": "MB/min", **slopes}]
    return report.table(f"Kafka away, spool limit {outcome.spool_limit_mb:.0f} MB", COLUMNS, shown)


@click.command(short_help="Kill Kafka under full input; check memory and records.")
@click.option("--minutes", default=10.0, show_default=True, help="How long Kafka stays away.")
@click.option(
    "--spool-mb",
    default=200,
    show_default=True,
    type=click.IntRange(17),
    help="The spool's limit in MB; the input file is twice as large.",
)
@report.as_json_option
def stuck(minutes: float, spool_mb: int, as_json: bool) -> None:
    """Kill Kafka under full input: does memory stay flat, does the source wait, is everything stored afterwards?

    The table shows resident memory of forwarder and receiver, the spool and the unread input in MB over time, with the
    peak and the slope in MB/min. When Kafka is back, an independent reader counts the records.

    Takes --minutes plus the drain (at most 10 minutes). Exit code 0: the source waited and every record is stored once,
    in order; 1: not. Memory is for you to judge.
    """
    console = Console(stderr=as_json)
    directory = Path(tempfile.mkdtemp(prefix="logbench-stuck-"))
    try:
        outcome = run(directory, seconds=minutes * 60, spool_mb=spool_mb, console=console)
    except (StartFailed, OracleFailed) as error:
        raise click.ClickException(str(error)) from error
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    if as_json:
        click.echo(json.dumps(asdict(outcome), indent=2))
    else:
        finding = outcome.finding
        console.print(table(outcome))
        console.print(
            f"source {'waited' if outcome.blocked else 'DID NOT WAIT'}; sent {finding.sent}, stored {finding.stored}, "
            f"missing {finding.missing}, duplicates {finding.twice}, out of order {finding.out_of_order}"
        )
    sys.exit(0 if outcome.finding.exact and outcome.blocked else 1)
