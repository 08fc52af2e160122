"""`logbench throughput`: a file, through forwarder, TLS and receiver, into a real sink; beside the machine's limit.

The clock runs from the moment the file appears to the last acknowledgement; start-up stands apart. CPU seconds and
peak memory are the kernel's own account of each process.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from bench.generate import write_http
from bench.limit import limit_megabytes_per_second
from bench.site import Site, StartFailed

POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Usage:
    """CPU seconds so far and peak resident memory of a process."""

    cpu_seconds: float
    peak_rss_mb: float

    @classmethod
    def of(cls, pid: int) -> Usage:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        status = Path(f"/proc/{pid}/status").read_text()
        peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
        return cls((int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), peak / 1024)


@dataclass(frozen=True)
class Result:
    """One run. MB are 10⁶ bytes of input; CPU seconds are without start-up."""

    mode: str
    sink: str
    records: int
    megabytes: float
    seconds: float
    limit_before: float
    limit_after: float
    forwarder_cpu_seconds: float
    receiver_cpu_seconds: float
    forwarder_rss_mb: float
    receiver_rss_mb: float
    batch_duration_median_ms: float
    batch_duration_p95_ms: float

    @property
    def share_of_limit(self) -> float:
        return self.megabytes / self.seconds / ((self.limit_before + self.limit_after) / 2)


def run(directory: Path, data: Path, *, records: int, mode: str, sink: str) -> Result:
    """Send a file once; raises StartFailed if not everything is acknowledged in time."""
    with contextlib.ExitStack() as stack:
        if sink == "kafka":
            from bench.kafka import Kafka

            kafka = stack.enter_context(Kafka(directory / "kafka"))
            toml = f'type = "kafka"\nbrokers = ["{kafka.bootstrap}"]\ncreate_topics = true'
        else:
            toml = 'type = "log"\ndirectory = "log"'
        site = stack.enter_context(Site(directory / "site"))
        _lay_out(site, toml, mode)
        before = limit_megabytes_per_second(data)
        forwarder, receiver = Usage.of(site.forwarder.pid), Usage.of(site.receiver.pid)
        started = time.perf_counter()
        os.link(data, site.directory / "in" / "http.log")
        everything = _wait(site, records, seconds=60 + records / 10_000)
        seconds = time.perf_counter() - started
        forwarder_after, receiver_after = Usage.of(site.forwarder.pid), Usage.of(site.receiver.pid)
        row = site.streams()["bench"]
        if not everything:
            raise StartFailed(
                f"only {row['records']['acknowledged']} of {records} acknowledged\n{site.forwarder.tail()}"
            )
        after = limit_megabytes_per_second(data)
    duration = row["batch_duration_seconds"]
    return Result(
        mode,
        sink,
        records,
        data.stat().st_size / 1e6,
        seconds,
        before,
        after,
        forwarder_after.cpu_seconds - forwarder.cpu_seconds,
        receiver_after.cpu_seconds - receiver.cpu_seconds,
        forwarder_after.peak_rss_mb,
        receiver_after.peak_rss_mb,
        duration["median"] * 1e3,
        duration["p95"] * 1e3,
    )


def _lay_out(site: Site, sink: str, mode: str) -> None:
    site.make_pki()
    (site.directory / "in").mkdir()
    site.write_receiver(sink, listeners={"localhost:0": f'["{mode}"]'})
    site.write_forwarder(site.start_receiver())
    site.write_stream("bench", f'security = "{mode}"\n[source]\ntype = "file"\npaths = ["in/*.log"]\nscan = "50ms"\n')
    site.start_forwarder()
    site.forwarder.wait_for("link opened")


def _wait(site: Site, records: int, seconds: float) -> bool:
    return site.wait_until_acknowledged(records, ["bench"], seconds, poll_seconds=POLL_SECONDS)


def table(results: list[Result]) -> Table:
    """The results for people."""
    shown = Table(title="file → forwarder (spool on) → TLS → receiver → sink, acknowledged")
    for title in (
        "mode",
        "sink",
        "records/s",
        "MB/s",
        "limit MB/s",
        "share",
        "forwarder CPU-s/GB",
        "receiver CPU-s/GB",
        "RSS MB",
        "batch ms p50 / p95",
    ):
        shown.add_column(title, justify="right")
    for r in results:
        gigabytes = r.megabytes / 1e3
        shown.add_row(
            r.mode,
            r.sink,
            f"{r.records / r.seconds:,.0f}",
            f"{r.megabytes / r.seconds:.0f}",
            f"{r.limit_before:.0f} / {r.limit_after:.0f}",
            f"{r.share_of_limit:.0%}",
            f"{r.forwarder_cpu_seconds / gigabytes:.2f}",
            f"{r.receiver_cpu_seconds / gigabytes:.2f}",
            f"{r.forwarder_rss_mb:.0f} / {r.receiver_rss_mb:.0f}",
            f"{r.batch_duration_median_ms:.1f} / {r.batch_duration_p95_ms:.1f}",
        )
    return shown


@click.command()
@click.option("--records", default=500_000, show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option("--mode", "mode_names", multiple=True, default=("hybrid",), show_default=True)
@click.option("--sink", type=click.Choice(["log", "kafka"]), default="kafka", show_default=True)
@click.option("--rounds", default=1, show_default=True, help="Runs of each mode, in turn.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def throughput(records: int, seed: int, mode_names: tuple[str, ...], sink: str, rounds: int, as_json: bool) -> None:
    """File to sink at full speed: records/s, CPU, memory, and the share of this machine's own limit."""
    console, results = Console(stderr=as_json), []
    directory = Path(tempfile.mkdtemp(prefix="logbench-"))
    try:
        data = directory / "data.jsonl"
        with console.status(f"generating {records} records"), data.open("wb") as out:
            write_http(out, records, seed)
        for number in range(rounds):
            for mode in mode_names:
                with console.status(f"round {number + 1} of {rounds}: {mode}"):
                    results.append(run(directory / f"{number}-{mode}", data, records=records, mode=mode, sink=sink))
    except StartFailed as error:
        raise click.ClickException(str(error)) from error
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    if as_json:
        rows: list[dict[str, Any]] = [{**asdict(r), "share_of_limit": r.share_of_limit} for r in results]
        click.echo(json.dumps(rows, indent=2))
    else:
        console.print(table(results))
