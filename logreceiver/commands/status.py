"""`logreceiver status`: how the streams of a running receiver do."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import click

from logreceiver.commands.options import CONFIG, socket_of
from streams import asking, program
from streams.columns import aligned

OUTCOMES = ("stored", "duplicate", "refused", "uncertain")
COUNTED = ("batches", "records", "bytes", "links_by_group")


EXAMPLES = """\b
Examples:
  logreceiver status
  logreceiver status --json | jq .trouble"""


@click.command(epilog=EXAMPLES)
@CONFIG
@click.option("--json", "as_json", is_flag=True, help="Print JSON: counts as in docs/api.md, with records_per_second.")
def status(path: Path, as_json: bool) -> None:
    """Say how the streams of the running receiver do.

    Prints a line for each stream that has or had a link since it started: links that are open, records stored per
    second, over one second, and since the start the records that were stored, recognised as duplicates, refused, or
    that may be stored although the sink did not say so. Below, what is wrong, such as a Kafka that is away. Several
    workers are added up. The receiver must have a control_socket; it is asked as its own user.

    Exit codes: 0 if nothing is wrong; 1 if something is, or a worker does not answer; 69 if no receiver answers; 78 if
    the configuration file cannot be read.
    """
    answer = asking.status(socket_of(path), lambda row: int(row["records"].get("stored", 0)), as_one)
    if as_json:
        asking.print_json(answer)
    else:
        titles = ("STREAM", "LINKS", "RECORDS/S", *map(str.upper, OUTCOMES))
        for line in aligned([titles, *_rows(answer)], numbers_from=1):
            program.say(line)
        asking.print_trouble(answer["trouble"])
    sys.exit(asking.EX_UNWELL if answer["trouble"] else 0)


def as_one(answer: asking.Answer) -> asking.Answer:
    """What workers answer, added up; what is wrong with one of several is told by its number."""
    workers, silent = answer["workers"], answer["silent"]
    several = len(workers) + len(silent) > 1
    trouble = {
        f"worker {worker['worker']}: {part}" if several else part: reason
        for worker in workers
        for part, reason in worker["trouble"].items()
    } | {f"worker {number}": "it does not answer" for number in silent}
    streams: dict[str, asking.Answer] = {}
    for worker in workers:
        for row in worker["streams"]:
            _add(streams.setdefault(row["stream"], _empty(row["stream"])), row)
    now = max((worker["now"] for worker in workers), default=0.0)
    return {"now": now, "trouble": trouble, "streams": [streams[name] for name in sorted(streams)]}


def _empty(stream: str) -> asking.Answer:
    return {"stream": stream, "twin_of": None, "modes": [], "links": 0, **{name: {} for name in COUNTED}}


def _add(total: asking.Answer, row: asking.Answer) -> None:
    total["twin_of"] = total["twin_of"] or row["twin_of"]
    total["modes"] = sorted({*total["modes"], *row["modes"]})
    total["links"] += row["links"]
    for name in COUNTED:
        total[name] = dict(Counter(total[name]) + Counter(row[name]))


def _rows(answer: asking.Answer) -> Iterable[tuple[str, ...]]:
    for row in answer["streams"]:
        counts = (str(row["records"].get(outcome, 0)) for outcome in OUTCOMES)
        yield row["stream"], str(row["links"]), f"{row['records_per_second']:.1f}", *counts
