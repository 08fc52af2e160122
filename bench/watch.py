"""`logbench watch`: the streams of running programs side by side in the terminal, a twin next to its original.

Everything comes from /api/v1/streams of admin addresses (docs/api.md); rates are the difference of two looks.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bench.figures import report
from bench.lab import adminclient
from bench.lab.adminclient import admin_of
from streams.columns import harmless
from streams.telemetry.client import NotAnswered

DEFAULT_ADMIN = "127.0.0.1:9464"
UNAVAILABLE = 69
LOST = ("invalid", "dropped", "dead_lettered")
COMPARED = ("batch_median_ms", "batch_p95_ms", "batch_p99_ms", "handshake_median_ms", "handshake_p95_ms")

Row = Mapping[str, Any]


class Look(NamedTuple):
    """The rows of an admin address at one time; `trouble` says why there are none."""

    at: float
    rows: Sequence[Row]
    trouble: str = ""

    @classmethod
    def at_admin(cls, admin: str) -> Look:
        try:
            return cls(time.monotonic(), adminclient.streams(admin))
        except NotAnswered as error:
            return cls(time.monotonic(), [], str(error))


def sheet(before: Look, after: Look) -> list[dict[str, Any]]:
    """One entry per stream, twins after their originals with ratios to them; a receiver's rows are unchanged."""
    earlier = {row["stream"]: row for row in before.rows}
    entries = {
        row["stream"]: _entry(earlier.get(row["stream"]), row, after.at - before.at)
        for row in after.rows
        if "batch_duration_seconds" in row
    }
    for entry in entries.values():
        if (original := entries.get(entry["twin_of"])) is not None:
            entry["ratios"] = {
                key: entry[key] / original[key] for key in COMPARED if entry[key] is not None and original[key]
            }
    received = [dict(row) for row in after.rows if "batch_duration_seconds" not in row]
    in_order = sorted(
        entries.values(),
        key=lambda entry: (entry["twin_of"] or entry["stream"], bool(entry["twin_of"]), entry["stream"]),
    )
    return in_order + received


def _entry(before: Row | None, row: Row, seconds: float) -> dict[str, Any]:
    batch, handshake, link = row["batch_duration_seconds"], row["handshake_seconds"], row["link"] or {}

    def rate(of: Callable[[Row], int]) -> float | None:
        return max(of(row) - of(before), 0) / seconds if before is not None and seconds > 0 else None

    return {
        "stream": row["stream"],
        "twin_of": row["twin_of"],
        "mode": row["mode"],
        "state": row["state"],
        **{key: link.get(key) for key in ("group", "version", "receiver")},
        "link_seconds": link.get("age_seconds"),
        "records_per_second": rate(lambda each: int(each["records"]["acknowledged"])),
        "batches_per_second": rate(lambda each: int(each["batch_duration_seconds"]["count"])),
        **{f"batch_{key}_ms": _milliseconds(batch[key]) for key in ("median", "p95", "p99")},
        "handshakes": handshake["count"],
        **{f"handshake_{key}_ms": _milliseconds(handshake[key]) for key in ("median", "p95")},
        "unacknowledged_batches": row["unacknowledged_batches"],
        "spool_bytes": row["spool"]["bytes"],
        "spool_oldest_seconds": row["spool"]["oldest_seconds"],
        "source_lag_bytes": row["source_lag_bytes"],
        "faults": {key: row["records"][key] for key in LOST}
        | {kind: sum(reasons.values()) for kind, reasons in row["faults"].items()},
        "ratios": {},
    }


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e3


# -- output ----------------------------------------------------------------------------------------------------------


def _number(value: float | None, form: str = ",.0f", unit: str = "") -> str:
    return "–" if value is None else f"{value:{form}}{unit}"


def _ms(key: str) -> Callable[[Row], str]:
    return lambda entry: _number(entry[key], ".2f", " ms")


Line = tuple[str, Callable[[Row], str], str]
"""Title, text of an entry, and the figure whose ratio is shown next to a twin, if any."""

LINES: Sequence[Line] = (
    ("mode", lambda entry: entry["mode"], ""),
    ("state", lambda entry: entry["state"], ""),
    ("group", lambda entry: entry["group"] or "–", ""),
    ("TLS version", lambda entry: entry["version"] or "–", ""),
    ("receiver", lambda entry: entry["receiver"] or "–", ""),
    ("link age", lambda entry: _number(entry["link_seconds"], ",.0f", " s"), ""),
    ("records/s", lambda entry: _number(entry["records_per_second"]), ""),
    ("batches/s", lambda entry: _number(entry["batches_per_second"], ",.1f"), ""),
    ("batch duration, median", _ms("batch_median_ms"), "batch_median_ms"),
    ("p95", _ms("batch_p95_ms"), "batch_p95_ms"),
    ("p99", _ms("batch_p99_ms"), "batch_p99_ms"),
    ("handshake, median", _ms("handshake_median_ms"), "handshake_median_ms"),
    ("p95", _ms("handshake_p95_ms"), "handshake_p95_ms"),
    ("handshakes", lambda entry: _number(entry["handshakes"]), ""),
    ("unacknowledged batches", lambda entry: _number(entry["unacknowledged_batches"]), ""),
    ("spool", lambda entry: _number(entry["spool_bytes"] / 1e6, ",.1f", " MB"), ""),
    ("oldest batch in spool", lambda entry: _number(entry["spool_oldest_seconds"], ",.1f", " s"), ""),
    ("source lag", lambda entry: _number(entry["source_lag_bytes"] / 1e6, ",.1f", " MB"), ""),
    ("faults", lambda entry: _counted(entry["faults"]).replace("_", " "), ""),
)
RECEIVED: Sequence[Line] = (
    ("twin of", lambda row: row["twin_of"] or "–", ""),
    ("modes", lambda row: ", ".join(row["modes"]), ""),
    ("open links", lambda row: _counted(row["links_by_group"]), ""),
    ("records", lambda row: _counted(row["records"]), ""),
    ("sink time, median", lambda row: _number(_milliseconds(row["sink_seconds"]["median"]), ".2f", " ms"), ""),
    ("handshake, median", lambda row: _number(_milliseconds(row["handshake_seconds"]["median"]), ".2f", " ms"), ""),
)


def _counted(counts: Mapping[str, float]) -> str:
    return ", ".join(f"{number:,.0f} {key}" for key, number in counts.items() if number) or "none"


def render(admin: str, look: Look, entries: Sequence[Row]) -> RenderableType:
    """One admin address: streams as columns, with the ratio next to each twin."""
    if look.trouble:
        return Text(harmless(look.trouble), style="bold red")
    if not entries:
        return Text(f"{admin}: no streams yet", style="yellow")
    return _side_by_side(admin, entries, LINES if "faults" in entries[0] else RECEIVED)


def _side_by_side(admin: str, entries: Sequence[Row], lines: Sequence[Line]) -> Table:
    table = Table(title=Text(admin), title_justify="left")
    table.add_column("")
    for entry in entries:
        table.add_column(Text(harmless(entry["stream"])), justify="right", overflow="fold")
        if entry.get("ratios"):
            table.add_column("ratio", justify="right", style="bold")
    for title, text, compared in lines:
        cells = []
        for entry in entries:
            cells.append(Text(harmless(text(entry))))
            if entry.get("ratios"):
                cells.append(Text(_number(entry["ratios"].get(compared), ".3f") if compared else ""))
        table.add_row(title, *cells)
    return table


@click.command(short_help="Show the streams of running programs side by side.")
@click.option(
    "--admin",
    "admins",
    multiple=True,
    help="Admin address of a forwarder or receiver, HOST:PORT or URL; repeat it for several.  "
    f"[default: {DEFAULT_ADMIN}]",
)
@click.option(
    "--config", type=click.Path(path_type=Path, exists=True), help="Take the admin address from this logfwd.toml."
)
@click.option("--every", type=click.FloatRange(0.2), default=1.0, show_default=True, help="Seconds between updates.")
@click.option("--once", is_flag=True, help="Print one table after --every seconds, and exit.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table; implies --once.")
def watch(admins: tuple[str, ...], config: Path | None, every: float, once: bool, as_json: bool) -> None:
    """Show the streams of running programs side by side, each twin next to its original with the ratio of durations.

    Runs until Ctrl-C. Percentiles are those of the programs' last batches and handshakes; rates are per second, over
    the time between updates. Needs nothing but the admin addresses.

    With --once or --json the exit code is 0, or 69 if an address did not answer.
    """
    try:
        asked = [*admins, *([admin_of(config)] if config else [])] or [DEFAULT_ADMIN]
    except NotAnswered as error:
        raise click.ClickException(str(error)) from error
    looks = _looks(asked, every)
    if not (once or as_json):
        _live(looks)
        return
    next(looks)
    found = next(looks)
    if as_json:
        report.emit("watch", [{"admin": admin, "trouble": look.trouble, "streams": s} for admin, look, s in found])
    else:
        Console().print(Group(*(render(*each) for each in found)))
    sys.exit(UNAVAILABLE if any(look.trouble for _, look, _ in found) else 0)


Found = list[tuple[str, Look, list[dict[str, Any]]]]


def _looks(admins: Sequence[str], every: float) -> Iterator[Found]:
    """Looks at all addresses, the first at once and without rates, the others every few seconds."""
    before: dict[str, Look] = {}
    while True:
        after = {admin: Look.at_admin(admin) for admin in admins}
        yield [(admin, look, sheet(before.get(admin, look), look)) for admin, look in after.items()]
        before = after
        time.sleep(every)


def _live(looks: Iterator[Found]) -> None:
    """One picture that changes, on a terminal; elsewhere one after the other."""
    with contextlib.suppress(KeyboardInterrupt):
        if not sys.stdout.isatty():
            for found in looks:
                Console().print(Group(*(render(*each) for each in found)))
                sys.stdout.flush()
        with Live(screen=True, auto_refresh=False) as live:
            for found in looks:
                live.update(Group(*(render(*each) for each in found)), refresh=True)
