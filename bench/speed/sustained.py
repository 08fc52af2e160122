"""`logbench sustained` and `logbench ramp`: whether memory stays flat at full speed and beyond it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import click

from bench.figures import report
from bench.figures.measure import Sample, Sampler, Usage, slope_per_minute
from bench.lab.load import Base, Load
from bench.lab.rig import POLL_SECONDS, Forwarder, Rig, Setup
from bench.speed.fullspeed import between_limits, maximum
from bench.speed.throughput import middle

SMALL_LOG = {
    "log.retention.bytes": "500000000",
    "log.segment.bytes": "100000000",
    "log.retention.check.interval.ms": "5000",
    "log.segment.delete.delay.ms": "1000",
}
"""The broker deletes old segments early, so that a long run does not fill the disk."""
KEPT_SHARE = 0.9
FLAT_MB = 20.0
"""A process whose memory grows by no more than this beyond its full-speed peak counts as flat."""


def memory(samples: Mapping[str, Sequence[Sample]]) -> list[dict[str, Any]]:
    """One row per process: peak and slope of resident memory, CPU as a share of a core."""
    rows = []
    for name, each in samples.items():
        first, last = each[0], each[-1]
        cpu = last.usage.cpu_seconds - first.usage.cpu_seconds
        rows.append(
            {
                "process": name,
                "rss_first_mb": first.usage.rss_mb,
                "rss_last_mb": last.usage.rss_mb,
                "rss_peak_mb": max(sample.usage.rss_mb for sample in each),
                "rss_slope_mb_per_minute": slope_per_minute([(sample.seconds, sample.usage.rss_mb) for sample in each]),
                "core_share": cpu / max(last.seconds - first.seconds, 1e-9),
                "rss_mb_each_second": [round(sample.usage.rss_mb, 1) for sample in each],
            }
        )
    return rows


MEMORY: Sequence[report.Column] = (
    ("process", lambda r: r["process"]),
    ("RSS first / last, MB", lambda r: f"{r['rss_first_mb']:.1f} / {r['rss_last_mb']:.1f}"),
    ("peak, MB", lambda r: f"{r['rss_peak_mb']:.1f}"),
    ("slope, MB/min", lambda r: f"{r['rss_slope_mb_per_minute']:+.2f}"),
    ("cores", lambda r: f"{r['core_share']:.2f}"),
)

RAMP: Sequence[report.Column] = (
    ("load", lambda r: f"{r['percent']:.0f} %"),
    ("offered, records/s", lambda r: f"{r['offered_records_per_second']:,.0f}"),
    ("acknowledged, records/s", lambda r: f"{r['records_per_second']:,.0f}"),
    ("source lag, MB", lambda r: f"{r['source_lag_mb']:.1f}"),
    ("forwarder / receiver RSS, MB", lambda r: f"{r['forwarder_rss_mb']:.0f} / {r['receiver_rss_mb']:.0f}"),
)


@click.command(short_help="Measure memory over minutes at full speed.")
@click.option(
    "--minutes", type=click.FloatRange(0.1), default=10.0, show_default=True, help="Duration of the full-speed load."
)
@report.record_bytes_option
@report.seed_option
@report.sink_option
@click.option("--records", default=200_000, show_default=True, help="Records of the file that is read in a loop.")
@report.as_json_option
def sustained(minutes: float, record_bytes: int, seed: int, sink: str, records: int, as_json: bool) -> None:
    """Full speed for --minutes, reading the input in a loop: does the memory of each process stay flat?

    The memory of each process is sampled every second; the table shows the first, last and peak resident memory in MB,
    the slope in MB/min (least squares over the second half of the run) and the cores in use. A meaningful slope takes
    at least ten minutes. With --sink log the stored batches need about a ninth of the input's size on disk.
    """
    with report.workplace(as_json) as (directory, console), Rig(directory, sink=sink, overrides=SMALL_LOG) as rig:
        base, _ = report.base_file(directory, console, records, seed=seed, record_bytes=record_bytes)
        with rig.forwarder(Setup()) as forwarder, between_limits(base) as limits:
            console.print(f"full speed for {minutes:g} minutes", style="dim")
            feed = forwarder.feeds(base)[0]
            with Sampler(rig.pids(forwarder)) as sampler:
                started, stored = time.monotonic(), 0
                while (passed := time.monotonic() - started) < minutes * 60:
                    feed.keep_ahead(stored)
                    time.sleep(POLL_SECONDS)
                    stored = forwarder.records()
            passed = time.monotonic() - started
    rate = stored / passed
    about: dict[str, Any] = {
        "seconds": passed,
        "records": stored,
        "records_per_second": rate,
        "limit_megabytes_per_second": limits,
    }
    about["megabytes_per_second"] = rate * base.size / base.records / 1e6
    rows = memory(sampler.samples)
    if as_json:
        report.emit("sustained", rows, **about)
        return
    title = f"{passed:.0f} s at {rate:,.0f} records/s, {about['megabytes_per_second']:.0f} MB/s, into {sink}"
    report.show(console, title, MEMORY, rows, [report.limit_note(limits)])


@click.command(short_help="Measure output and memory beyond full load.")
@click.option("--seconds", type=click.FloatRange(1), default=20.0, show_default=True, help="Duration of each load.")
@click.option(
    "--percent",
    "loads",
    type=report.Numbers(1, 1000),
    default="50,75,100,125,150",
    show_default=True,
    help="Offered loads, in % of the maximum measured first, separated by commas.",
)
@report.record_bytes_option
@report.seed_option
@report.sink_option
@report.maximum_records_option
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Repetitions of the whole ramp; the median is shown.",
)
@report.as_json_option
def ramp(
    seconds: float,
    loads: list[float],
    record_bytes: int,
    seed: int,
    sink: str,
    records: int,
    rounds: int,
    as_json: bool,
) -> None:
    """Offer loads from half of the maximum to beyond it: beyond, output and memory must hold while the source lags.

    The maximum is measured in the same run. The load is open loop: it does not wait for the forwarder. The table shows
    records/s offered and acknowledged, the source lag and resident memory in MB; a last line says whether output and
    memory stayed within their goals. Whatever lags is stored before the next load begins.

    Takes two to three minutes per round with the defaults. The exit code does not depend on the goals.
    """
    with report.workplace(as_json) as (directory, console), Rig(directory, sink=sink, overrides=SMALL_LOG) as rig:
        base, copies = report.base_file(directory, console, records, seed=seed, record_bytes=record_bytes)
        with rig.forwarder(Setup()) as forwarder, between_limits(base) as limits:
            with console.status("measuring the maximum"):
                most = maximum(rig, forwarder, base, copies)
            steps: dict[float, list[dict[str, Any]]] = {part: [] for part in loads}
            with Sampler(rig.pids(forwarder)) as sampler:
                for part, done in list(steps.items()) * rounds:
                    with console.status(f"{part:g} % of {most['records_per_second']:,.0f} records/s"):
                        done.append(_step(rig, forwarder, base, most["records_per_second"] * part / 100, seconds))
    rows = [{"percent": part, **middle(done)} for part, done in steps.items()]
    verdict = judge(rows, most["peak_rss_mb"]["forwarder"])
    if as_json:
        report.emit(
            "ramp", rows, maximum=most, limit_megabytes_per_second=limits, memory=memory(sampler.samples), **verdict
        )
        return
    result = (
        f"Output is at least {verdict['kept_share']:.0%} of the offered load, or of the peak output if that is lower "
        f"(goal: {KEPT_SHARE:.0%}). The forwarder's memory compared with its full-speed peak: "
        f"{verdict['grown_mb']:+.0f} MB (goal: at most {FLAT_MB:+.0f})."
    )
    report.show(
        console,
        f"maximum {most['records_per_second']:,.0f} records/s into {sink}",
        RAMP,
        rows,
        [result, report.limit_note(limits)],
    )


def _step(rig: Rig, forwarder: Forwarder, base: Base, rate: float, seconds: float) -> dict[str, Any]:
    """One load for a while."""
    acknowledged, started = forwarder.records(), time.monotonic()
    load = Load(base, forwarder.input(forwarder.originals[0]) / "http.log", rate)
    load.start()
    time.sleep(seconds)
    load.stop()
    row, passed = forwarder.row(), time.monotonic() - started
    forwarder_rss_mb = Usage.of(forwarder.program.pid).rss_mb
    forwarder.wait_for(acknowledged + load.sent, 60 + 2 * seconds)
    load.remove(load.sent)
    return {
        "offered_records_per_second": load.sent / passed,
        "records_per_second": (row["records"]["acknowledged"] - acknowledged) / passed,
        "source_lag_mb": row["source_lag_bytes"] / 1e6,
        "load_behind_seconds": load.behind_seconds,
        "forwarder_rss_mb": forwarder_rss_mb,
        "receiver_rss_mb": Usage.of(rig.receiver.pid).rss_mb,
    }


def judge(rows: Sequence[Mapping[str, Any]], full_speed_mb: float) -> dict[str, Any]:
    """Whether back-pressure holds: output stays at the offered load or at its peak, and memory stays flat."""
    peak = max(row["records_per_second"] for row in rows)
    kept = min(row["records_per_second"] / min(row["offered_records_per_second"], peak) for row in rows)
    grown = max(row["forwarder_rss_mb"] for row in rows) - full_speed_mb
    return {"kept_share": kept, "grown_mb": grown, "holds": kept >= KEPT_SHARE and grown <= FLAT_MB}
