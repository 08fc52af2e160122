"""`logbench throughput`: files, through forwarder, TLS and receiver, into a real sink; beside the machine's own limit.

The clock runs from the moment the files appear to the last acknowledgement; start-up stands apart. Input beyond a base
file is the same records again, in files that begin differently. CPU seconds and memory are the kernel's own account.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from bench.generate import generate_http, generate_sized
from bench.kafka import Kafka, KafkaFailed
from bench.limit import limit_megabytes_per_second
from bench.measure import Usage, median_of
from bench.site import Site, StartFailed

POLL_SECONDS = 0.25
BASE_RECORDS = 500_000
HTTP_RECORD_BYTES = 577
PAGE_WIDTH = 150
MEMORY = Path("/dev/shm")  # noqa: S108 — a spool in memory is what is measured there


@dataclass(frozen=True)
class Job:
    """What is sent, and how."""

    mode: str = "hybrid"
    sink: str = "kafka"
    codec: str = "zstd"
    spool: str = "disk"
    streams: int = 1
    twins: int = 0
    records: int = BASE_RECORDS
    record_bytes: int = HTTP_RECORD_BYTES

    def __str__(self) -> str:
        parts = [self.mode, self.sink, f"{self.record_bytes} B", self.codec]
        parts += [f"spool in {self.spool}"] * (self.spool != "disk")
        parts += [f"{self.streams} streams"] * (self.streams > 1) + [f"{self.twins} twins"] * (self.twins > 0)
        return ", ".join(parts)


@dataclass(frozen=True)
class Result:
    """One run. MB are 10⁶ bytes of input, RSS 2²⁰; CPU seconds are without start-up."""

    job: Job
    records: int
    megabytes: float
    seconds: float
    limit_before: float
    limit_after: float
    forwarder_cpu_seconds: float
    receiver_cpu_seconds: float
    forwarder_rss_mb: float
    receiver_rss_mb: float
    batch_duration_p50_ms: float
    batch_duration_p99_ms: float

    @property
    def records_per_second(self) -> float:
        return self.records / self.seconds

    @property
    def megabytes_per_second(self) -> float:
        return self.megabytes / self.seconds

    @property
    def limit(self) -> float:
        return (self.limit_before + self.limit_after) / 2

    @property
    def share_of_limit(self) -> float:
        return self.megabytes_per_second / self.limit

    @property
    def forwarder_cpu_per_gb(self) -> float:
        return self.forwarder_cpu_seconds / self.megabytes * 1e3

    @property
    def receiver_cpu_per_gb(self) -> float:
        return self.receiver_cpu_seconds / self.megabytes * 1e3

    @property
    def records_per_forwarder_cpu_second(self) -> float:
        return self.records / self.forwarder_cpu_seconds


# -- input -----------------------------------------------------------------------------------------------------


def write_base(path: Path, job: Job, seed: int) -> int:
    """The records that are sent again and again; returns how many."""
    count = min(job.records, BASE_RECORDS)
    sized = generate_http(count, seed)
    if job.record_bytes != HTTP_RECORD_BYTES:
        sized = generate_sized(count, seed, job.record_bytes)
    with path.open("wb") as out:
        while some := list(itertools.islice(sized, 1000)):
            out.write(b"\n".join(some) + b"\n")
    return count


def copies(base: Path, count: int, job: Job, directory: Path) -> Iterator[tuple[Path, int]]:
    """Files of all records of a stream, and how many each holds: the first of a file says which copy it is."""
    for number in range(max(round(job.records / count), 1)):
        path = directory / f"copy-{number}.new"
        with path.open("wb") as out:
            out.write(b'{"copy":%d}\n' % number)
            with base.open("rb") as records:
                shutil.copyfileobj(records, out)
        yield path, count + 1


# -- one run ---------------------------------------------------------------------------------------------------


def run(directory: Path, base: Path, count: int, job: Job, *, kafka: Kafka | None, profile: Path | None) -> Result:
    """Raises StartFailed if not everything is acknowledged in time."""
    with contextlib.ExitStack() as stack:
        site = stack.enter_context(Site(directory))
        names = _lay_out(site, job, kafka, stack)
        inputs = {name: list(copies(base, count, job, site.directory / name)) for name in names[: job.streams]}
        sizes = [path.stat().st_size for files in inputs.values() for path, _ in files]
        each = sum(records for _, records in next(iter(inputs.values())))
        before = limit_megabytes_per_second(base)
        watching = _profile(site.forwarder.pid, profile, stack)
        forwarder, receiver = Usage.of(site.forwarder.pid), Usage.of(site.receiver.pid)
        started = time.perf_counter()
        for path, _ in itertools.chain(*inputs.values()):
            path.rename(path.with_suffix(".log"))
        if not site.wait_until_acknowledged(each, names, 60 + each / 5_000, poll_seconds=POLL_SECONDS):
            raise StartFailed(f"{job}: not all of {each} records acknowledged in time\n{site.forwarder.tail()}")
        seconds = time.perf_counter() - started
        forwarder_after, receiver_after = Usage.of(site.forwarder.pid), Usage.of(site.receiver.pid)
        if watching is not None:
            watching.terminate()
        duration = site.streams()[names[0]]["batch_duration_seconds"]
        after = limit_megabytes_per_second(base)
    return Result(
        job,
        each * job.streams,
        sum(sizes) / 1e6,
        seconds,
        before,
        after,
        forwarder_after.cpu_seconds - forwarder.cpu_seconds,
        receiver_after.cpu_seconds - receiver.cpu_seconds,
        forwarder_after.peak_rss_mb,
        receiver_after.peak_rss_mb,
        duration["median"] * 1e3,
        duration["p99"] * 1e3,
    )


def _lay_out(site: Site, job: Job, kafka: Kafka | None, stack: contextlib.ExitStack) -> list[str]:
    """Start both programs; returns all streams, originals first."""
    sink = 'type = "log"\ndirectory = "log"'
    if kafka is not None:
        sink = f'type = "kafka"\nbrokers = ["{kafka.bootstrap}"]\ncreate_topics = true'
    site.make_pki()
    site.write_receiver(sink, listeners={"localhost:0": f'["{job.mode}"]'})
    site.write_forwarder(site.start_receiver())
    if job.spool == "memory":
        state = stack.enter_context(tempfile.TemporaryDirectory(dir=MEMORY))
        config = site.directory / "logfwd.toml"
        config.write_text(config.read_text().replace('state_dir = "state"', f'state_dir = "{state}"'))
    prefix = f"t{time.time_ns()}"
    names = [f"{prefix}-{number}" for number in range(job.streams)]
    for name in names:
        (site.directory / name).mkdir()
        source = f'[source]\ntype = "file"\npaths = ["{name}/*.log"]\nscan = "50ms"\n'
        site.write_stream(name, f'security = "{job.mode}"\ncodec = "{job.codec}"\n{source}')
    twins = [f"{name}-twin-{number}" for name in names for number in range(job.twins)]
    for twin in twins:
        site.write_stream(twin, f'security = "{job.mode}"\nmirror_of = "{twin.partition("-twin-")[0]}"\n')
    site.start_forwarder()
    site.forwarder.wait_for("link opened", times=len(names) + len(twins))
    return names + twins


def _profile(pid: int, out: Path | None, stack: contextlib.ExitStack) -> subprocess.Popen[bytes] | None:
    if out is None:
        return None
    tool = shutil.which("py-spy")
    if tool is None:
        raise click.ClickException("--profile needs py-spy: pip install py-spy")
    argv = [tool, "record", "--pid", str(pid), "--output", str(out), "--format", "speedscope", "--threads"]
    process = stack.enter_context(subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    stack.callback(process.terminate)
    return process


# -- telling ---------------------------------------------------------------------------------------------------


def table(results: Sequence[Result]) -> Table:
    """The median of each job's rounds, for people."""
    shown = Table(title="files → forwarder → TLS → receiver → sink, acknowledged; medians")
    titles = (
        "job",
        "rounds",
        "records",
        "records/s",
        "MB/s",
        "limit",
        "share",
        "forwarder CPU-s/GB",
        "receiver CPU-s/GB",
        "records per CPU-s",
        "RSS MB",
        "batch ms p50 / p99",
    )
    for title in titles:
        shown.add_column(title, justify="left" if title == "job" else "right")
    for job in dict.fromkeys(result.job for result in results):
        rounds = [result for result in results if result.job == job]
        figures = {
            name: median_of(rounds, lambda result, name=name: float(getattr(result, name)))  # type: ignore[misc]
            for name in (
                "records_per_second",
                "megabytes_per_second",
                "limit",
                "share_of_limit",
                "forwarder_cpu_per_gb",
                "receiver_cpu_per_gb",
                "records_per_forwarder_cpu_second",
                "batch_duration_p50_ms",
                "batch_duration_p99_ms",
            )
        }
        shown.add_row(
            str(job),
            str(len(rounds)),
            f"{rounds[0].records:,}",
            f"{figures['records_per_second']:,.0f}",
            f"{figures['megabytes_per_second']:.0f}",
            f"{figures['limit']:.0f}",
            f"{figures['share_of_limit']:.0%}",
            f"{figures['forwarder_cpu_per_gb']:.2f}",
            f"{figures['receiver_cpu_per_gb']:.2f}",
            f"{figures['records_per_forwarder_cpu_second']:,.0f}",
            f"{max(r.forwarder_rss_mb for r in rounds):.0f} / {max(r.receiver_rss_mb for r in rounds):.0f}",
            f"{figures['batch_duration_p50_ms']:.1f} / {figures['batch_duration_p99_ms']:.1f}",
        )
    return shown


def as_json(results: Sequence[Result]) -> list[dict[str, Any]]:
    return [{**asdict(result), "share_of_limit": result.share_of_limit} for result in results]


def run_jobs(jobs: Sequence[Job], rounds: int, seed: int, console: Console, profile: Path | None) -> list[Result]:
    """Every job in turn, and again, so that what changes on the machine changes for all of them."""
    results: list[Result] = []
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="logbench-")))
        kafka = None
        if any(job.sink == "kafka" for job in jobs):
            kafka = stack.enter_context(Kafka(directory / "kafka"))
        for number, job in itertools.product(range(rounds), jobs):
            base = directory / f"base-{job.record_bytes}.jsonl"
            with console.status(f"round {number + 1} of {rounds}: {job}"):
                count = write_base(base, job, seed) if not base.exists() else min(job.records, BASE_RECORDS)
                site = directory / f"site-{len(results)}"
                target = kafka if job.sink == "kafka" else None
                results.append(run(site, base, count, job, kafka=target, profile=profile))
            shutil.rmtree(site)
    return results


@click.command()
@click.option("--records", default=BASE_RECORDS, show_default=True, help="For each stream, in steps of 500 000.")
@click.option("--record-bytes", "sizes", multiple=True, default=(HTTP_RECORD_BYTES,), show_default=True, type=int)
@click.option("--mode", "modes", multiple=True, default=("hybrid",), show_default=True)
@click.option("--sink", "sinks", multiple=True, type=click.Choice(["log", "kafka"]), default=("kafka",))
@click.option("--codec", "codecs", multiple=True, type=click.Choice(["zstd", "none"]), default=("zstd",))
@click.option("--spool", "spools", multiple=True, type=click.Choice(["disk", "memory"]), default=("disk",))
@click.option("--streams", "streams", multiple=True, default=(1,), show_default=True, help="Originals, side by side.")
@click.option("--twins", "twins", multiple=True, default=(0,), show_default=True, help="Twins of each original.")
@click.option("--rounds", default=1, show_default=True, help="Runs of each job, in turn; medians are shown.")
@click.option("--seed", default=1, show_default=True)
@click.option("--profile", type=click.Path(path_type=Path), help="A speedscope file of the forwarder, by py-spy.")
@click.option("--json", "as_json_", is_flag=True, help="For machines.")
def throughput(
    records: int,
    sizes: tuple[int, ...],
    modes: tuple[str, ...],
    sinks: tuple[str, ...],
    codecs: tuple[str, ...],
    spools: tuple[str, ...],
    streams: tuple[int, ...],
    twins: tuple[int, ...],
    rounds: int,
    seed: int,
    profile: Path | None,
    as_json_: bool,
) -> None:
    """Files to sink at full speed: records/s, CPU, memory, and the share of this machine's own limit.

    An option given twice makes a job of each value; all are run in turn, so that they can be compared.
    """
    console = Console(stderr=as_json_)
    if not console.is_terminal:
        console.width = PAGE_WIDTH
    jobs = [
        Job(mode, sink, codec, spool, originals, copies_, records, size)
        for mode, sink, codec, spool in itertools.product(modes, sinks, codecs, spools)
        for originals, copies_, size in itertools.product(streams, twins, sizes)
    ]
    try:
        results = run_jobs(jobs, rounds, seed, console, profile)
    except (StartFailed, KafkaFailed) as error:
        raise click.ClickException(str(error)) from error
    if as_json_:
        click.echo(json.dumps(as_json(results), indent=2))
    else:
        console.print(table(results))
