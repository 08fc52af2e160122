"""One run at full speed: copies of a file through a forwarder into the sink, and the cost for each process."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.figures.limit import limit_megabytes_per_second
from bench.figures.measure import Usage, profiled, thread_cpu_seconds
from bench.lab.load import Base
from bench.lab.processes import StartFailed
from bench.lab.rig import Forwarder, Rig

SLOWEST_RECORDS_PER_SECOND = 5_000


def measure(
    rig: Rig, forwarder: Forwarder, base: Base, copies: int, *, threads: bool = False, profile: Path | None = None
) -> dict[str, Any]:
    """Read `copies` of the base file on each stream; the clock runs from the files' appearance to the last write.

    MB are 10⁶ bytes read; CPU seconds and GB cover this run alone, without start-up and handshakes. Raises StartFailed.
    """
    feeds, pids = forwarder.feeds(base), rig.pids(forwarder)
    for feed in feeds:
        feed.stage(copies)
    records_before = forwarder.records()
    before = {name: Usage.of(pid) for name, pid in pids.items()}
    threads_before = thread_cpu_seconds(pids["forwarder"])
    with profiled(pids["forwarder"], profile) as note:
        started = time.time()
        for feed in feeds:
            feed.place(copies)
        records = feeds[0].sent
        forwarder.wait_for(records_before + records, 60 + records * len(feeds) / SLOWEST_RECORDS_PER_SECOND)
        seconds = rig.stored_at(forwarder.names) - started
    after = {name: Usage.of(pid) for name, pid in pids.items()}
    for feed in feeds:
        feed.remove(records)
    row = forwarder.row()
    if row["records"]["dropped"] or row["resets"] or row["records"]["invalid"]:
        raise StartFailed(f"records were dropped, invalid or resent: {row['records']}, {row['resets']} resets")
    megabytes = base.size * copies * len(feeds) / 1e6
    result = _figures(before, after, records * len(feeds), megabytes, seconds)
    for name, percentile in (("p50", "median"), ("p99", "p99")):
        found = row["batch_duration_seconds"][percentile]
        result[f"batch_duration_{name}_ms"] = math.nan if found is None else found * 1e3  # of programs without metrics
    if threads:
        now = thread_cpu_seconds(pids["forwarder"])
        result["threads_cpu_seconds"] = {name: now[name] - threads_before.get(name, 0.0) for name in now}
    if note:
        result["profile"] = note
    return result


def _figures(
    before: Mapping[str, Usage], after: Mapping[str, Usage], records: int, megabytes: float, seconds: float
) -> dict[str, Any]:
    cpu = {name: after[name].cpu_seconds - before[name].cpu_seconds for name in after}
    return {
        "records": records,
        "megabytes": megabytes,
        "seconds": seconds,
        "records_per_second": records / seconds,
        "megabytes_per_second": megabytes / seconds,
        "cpu_seconds": cpu,
        "cpu_seconds_per_gb": {name: value / megabytes * 1e3 for name, value in cpu.items()},
        "records_per_forwarder_cpu_second": records / max(cpu["forwarder"], 0.01),
        "peak_rss_mb": {name: usage.peak_rss_mb for name, usage in after.items()},
    }


def maximum(rig: Rig, forwarder: Forwarder, base: Base, copies: int) -> dict[str, Any]:
    """A warm forwarder's full speed, of which loads are given in percent."""
    measure(rig, forwarder, base, 1)
    return measure(rig, forwarder, base, max(copies, 2))


@contextlib.contextmanager
def between_limits(base: Base, *, compress: bool = True) -> Iterator[list[float]]:
    """This machine's own limit in MB/s: one value from before the block and, once it has ended, one from after it."""
    found = [limit_megabytes_per_second(base.path, compress=compress)]
    yield found
    found.append(limit_megabytes_per_second(base.path, compress=compress))
