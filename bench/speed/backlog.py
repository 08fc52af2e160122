"""`logbench backlog`: how fast a spool that filled during a receiver outage drains while live records keep flowing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import click

from bench.figures import report
from bench.figures.measure import Sampler
from bench.lab.load import Base, Feed, Load
from bench.lab.processes import StartFailed, wait_until
from bench.lab.rig import Forwarder, Rig, Setup
from bench.speed.fullspeed import between_limits, maximum
from streams.wire.messages import MAX_WINDOW

LOOK_SECONDS = 0.25


@click.command(short_help="Measure how fast a backlog drains after an outage.")
@click.option(
    "--size",
    type=report.Size(),
    default="500MB",
    show_default=True,
    help="Size of the records that pile up, before compression; units are kB, MB, GB, KiB, MiB and GiB.",
)
@click.option(
    "--live", type=click.FloatRange(0, 90), default=10.0, show_default=True, help="Live load, in % of the maximum."
)
@report.maximum_records_option
@report.record_bytes_option
@report.seed_option
@report.sink_option
@report.as_json_option
def backlog(size: int, live: float, records: int, record_bytes: int, seed: int, sink: str, as_json: bool) -> None:
    """Fill a spool while the receiver is away, then drain it while live records keep flowing.

    Measures the drain rate in records/s: everything acknowledged between the receiver's start and the moment when no
    more than one window of batches is left. The forwarder's back-off before it reconnects is included. The rate is
    also given as a share of the maximum from file to sink, which is measured first.

    Takes one to two minutes with the defaults, and about an eighth of --size on disk.
    """
    with report.workplace(as_json) as (directory, console), Rig(directory, sink=sink) as rig:
        base, copies = report.base_file(directory, console, records, seed=seed, record_bytes=record_bytes)
        times = max(round(size / base.size), 1)
        with (
            rig.forwarder(Setup(more='[spool]\nmax_spool_bytes = "64GiB"\n')) as forwarder,
            between_limits(base) as limits,
        ):
            with console.status("measuring the maximum"):
                most = maximum(rig, forwarder, base, copies)
            with console.status(f"filling the spool with {base.size * times / 1e6:.0f} MB"):
                filled = _fill(rig, forwarder, base, times)
            with console.status("draining"), Sampler({"forwarder": forwarder.program.pid}) as sampler:
                drained = _drain(rig, forwarder, base, most["records_per_second"] * live / 100)
    peak = max(sample.usage.rss_mb for sample in sampler.samples["forwarder"])
    share = drained["records_per_second"] / most["records_per_second"]
    row = {**filled, **drained, "share_of_maximum": share, "forwarder_rss_peak_mb": peak, "live_percent": live}
    if as_json:
        report.emit("backlog", [row], maximum=most, limit_megabytes_per_second=limits, sink=sink)
        return
    title = f"backlog drained into {sink}; maximum {most['records_per_second']:,.0f} records/s"
    report.show(console, title, FIGURES, [row], [report.limit_note(limits)], upright=True)


def _fill(rig: Rig, forwarder: Forwarder, base: Base, times: int) -> dict[str, Any]:
    """Stop the receiver, and wait until all the input is in the spool."""
    rig.receiver.stop()
    feed = Feed(base, forwarder.input(forwarder.originals[0]))
    feed.stage(times)
    before, started = forwarder.row()["records"]["accepted"], time.monotonic()
    feed.place(times)
    if not wait_until(lambda: forwarder.records("accepted") >= before + feed.sent, 60 + feed.sent / 5_000):
        raise StartFailed(f"the spool did not take everything: {forwarder.row()}")
    seconds, row = time.monotonic() - started, forwarder.row()
    return {
        "spooled_records": row["spool"]["records"],
        "spooled_megabytes": row["spool"]["bytes"] / 1e6,
        "fill_records_per_second": feed.sent / seconds,
    }


def _drain(rig: Rig, forwarder: Forwarder, base: Base, live_rate: float) -> dict[str, Any]:
    """Start the receiver again, and wait until at most one window, which is in flight, is left in the spool."""
    before = forwarder.records()
    load = Load(base, forwarder.input(forwarder.originals[0]) / "http.log", max(live_rate, 1.0))
    load.start()
    rig.start_receiver()
    started = time.monotonic()
    if not wait_until(lambda: forwarder.row()["spool"]["batches"] <= MAX_WINDOW, 600, every_seconds=LOOK_SECONDS):
        raise StartFailed(f"the spool did not drain: {forwarder.row()}")
    seconds, done = time.monotonic() - started, forwarder.records() - before
    load.stop()
    return {"drain_seconds": seconds, "drained_records": done, "records_per_second": done / seconds}


FIGURES: Sequence[report.Column] = (
    ("", lambda r: f"live load {r['live_percent']:g} %"),
    ("records in the spool", lambda r: f"{r['spooled_records']:,}"),
    ("spool on disk, MB", lambda r: f"{r['spooled_megabytes']:.0f}"),
    ("fill rate, records/s", lambda r: f"{r['fill_records_per_second']:,.0f}"),
    ("drained, live ones included, records", lambda r: f"{r['drained_records']:,}"),
    ("drain time, s", lambda r: f"{r['drain_seconds']:.2f}"),
    ("drain rate, records/s", lambda r: f"{r['records_per_second']:,.0f}"),
    ("share of the maximum", lambda r: f"{r['share_of_maximum']:.0%}"),
    ("forwarder's peak RSS while draining, MB", lambda r: f"{r['forwarder_rss_peak_mb']:.0f}"),
)
