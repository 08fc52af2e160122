"""`logfwd status`: how the streams of the running forwarder do."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from logfwd.commands.options import CONFIG, socket_of
from streams import asking, program
from streams.columns import aligned, show_bytes, show_seconds

WELL = ("connected", "connecting")
"""A link that is being made lasts a moment: what fails is disconnected."""


@click.command(
    epilog="""\b
Examples:
  logfwd status                       one line a stream
  logfwd status --json | jq .streams  the same for a script
  logfwd status || page-somebody      by the exit code"""
)
@CONFIG
@click.option("--json", "as_json", is_flag=True, help="Print JSON: the rows of docs/api.md, with records_per_second.")
def status(path: Path, as_json: bool) -> None:
    """Say how the streams of the running forwarder do.

    Prints a line for each stream: the state of its link; records acknowledged per second, over one second; records
    that wait in the spool, and the age of the oldest; what its source has that is not spooled yet (LAG); and what went
    wrong last, in the receiver's own words. Below, what else is wrong, such as a reload that was refused. The forwarder
    is asked over state_dir/control.sock, as its own user.

    Exit codes: 0 if every stream has a link and nothing is wrong; 1 if not; 69 if no forwarder answers; 78 if the
    configuration file cannot be read.
    """
    answer = asking.status(socket_of(path), _acknowledged)
    if as_json:
        asking.print_json(answer)
    else:
        _print(answer)
    sys.exit(0 if _is_well(answer) else asking.EX_UNWELL)


def _acknowledged(row: asking.Answer) -> int:
    return int(row["records"]["acknowledged"])


def _is_well(answer: asking.Answer) -> bool:
    return not answer["trouble"] and all(row["state"] in WELL for row in answer["streams"])


def _print(answer: asking.Answer) -> None:
    titles = ("STREAM", "MODE", "STATE", "RECORDS/S", "WAITING", "OLDEST", "LAG")
    cells = [titles, *(_cells(row) for row in answer["streams"])]
    errors = ["LAST ERROR", *(_error(row, answer["now"]) for row in answer["streams"])]
    for line, error in zip(aligned(cells, numbers_from=3), errors, strict=True):
        program.say(f"{line}  {error}".rstrip())
    asking.print_trouble(answer["trouble"])


def _cells(row: asking.Answer) -> tuple[str, ...]:
    spool = row["spool"]
    return (
        row["stream"],
        row["mode"],
        row["state"],
        f"{row['records_per_second']:.1f}",
        str(spool["records"]),
        show_seconds(spool["oldest_seconds"]) if spool["records"] else "-",
        show_bytes(row["source_lag_bytes"]),
    )


def _error(row: asking.Answer, now: float) -> str:
    failure = row["last_failure"]
    if failure is None:
        return "-"
    return f"{show_seconds(now - failure['at'])} ago: {failure['detail'] or failure['reason']}"
