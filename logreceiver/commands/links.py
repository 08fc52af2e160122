"""`logreceiver links`: the open links of a running receiver."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from logreceiver.commands.options import CONFIG, socket_of
from streams import asking, program
from streams.columns import aligned, show_seconds

COLUMNS = ("stream", "identity", "peer", "mode", "group", "topic")


@click.command(
    epilog="""\b
Examples:
  logreceiver links                                    one line a link
  logreceiver links | grep host-1                      those of a host
  logreceiver links --json | jq -r '.links[].identity' | sort -u"""
)
@CONFIG
@click.option("--json", "as_json", is_flag=True, help="Print JSON: rows like newest_links in docs/api.md.")
def links(path: Path, as_json: bool) -> None:
    """List the open links of the running receiver.

    Prints a line for each link: its stream, the forwarder's identity and address, security mode, key-exchange group,
    topic, and age. The receiver must have a control_socket; it is asked as its own user.

    Exit codes: 0 for a list that is whole; 1 if a worker does not answer; 69 if no receiver answers; 78 if the
    configuration file cannot be read.
    """
    answer = asking.ask(socket_of(path), "links", seconds=asking.STATUS_SECONDS)
    found = [{"worker": worker["worker"], **row} for worker in answer["workers"] for row in worker["links"]]
    found.sort(key=lambda row: (row["stream"], row["identity"], -row["age_seconds"]))
    if as_json:
        asking.print_json({"links": found, "silent": answer["silent"]})
    else:
        cells = [(*(row[name] for name in COLUMNS), show_seconds(row["age_seconds"])) for row in found]
        for line in aligned([(*map(str.upper, COLUMNS), "AGE"), *cells], numbers_from=len(COLUMNS)):
            program.say(line)
    for number in answer["silent"]:
        program.say(f"worker {number} does not answer: its links are missing here", err=True)
    sys.exit(asking.EX_UNWELL if answer["silent"] else 0)
