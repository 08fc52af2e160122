"""`logfwd tap`: shows records of a stream of the running forwarder as they pass."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec

from logfwd.commands.options import CONFIG, socket_of
from logfwd.tap import MOST_RATE, Line
from streams import control, program
from streams.records.printed import for_terminal
from streams.telemetry.client import NotAnswered


@click.command(
    epilog="""\b
Examples:
  logfwd tap http                          records of http, until Ctrl-C
  logfwd tap http --count 1 | jq .         the next one
  logfwd tap http --json --rate 1000       with time, key and headers"""
)
@click.argument("stream")
@CONFIG
@click.option("-n", "--count", type=click.IntRange(1), help="End after this many records.")
@click.option(
    "--rate",
    type=click.FloatRange(1, MOST_RATE),
    default=100.0,
    show_default=True,
    help="Show at most this many records a second.",
)
@click.option("--json", "as_json", is_flag=True, help="Print each record in an object with its time, key and headers.")
def tap(stream: str, path: Path, count: int | None, rate: float, as_json: bool) -> None:
    """Show records of STREAM of the running forwarder as they pass.

    Prints one record per line once it is in the spool, whether or not a receiver has it already; one that is not a JSON
    object is printed as {"record_base64": "…"}. Characters that a terminal would obey are printed as escapes of JSON if
    stdout is one. Delivery does not wait for this command: if more records pass than --rate, or than it can print, they
    are left out and counted, on stderr at the end and as "unseen" with --json. The forwarder is asked over
    state_dir/control.sock, as its own user, and logs who asked.

    Exit codes: 0 after Ctrl-C, --count or the end of stdout; 1 if there is no such stream, or it is removed; 69 if no
    forwarder answers, or it ends; 78 if the configuration file cannot be read.
    """
    shown = unseen = 0
    out, to_terminal = sys.stdout.buffer, sys.stdout.isatty()
    try:
        for line, text in _records(socket_of(path), stream, rate):
            shown, unseen = shown + 1, unseen + line.unseen
            record = text if as_json else bytes(line.record)
            out.write((for_terminal(record) if to_terminal else record) + b"\n")
            out.flush()
            if shown == count:
                break
        else:
            program.end_unavailable(NotAnswered("the forwarder ended"))
    except NotAnswered as error:
        program.end_unavailable(error)
    except KeyboardInterrupt:
        program.say("", err=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())  # Python flushes it once more at the end
        return
    left_out = f"; {unseen} more passed unseen (--rate {rate:g})" if unseen else ""
    program.say(f"{shown} records shown{left_out}", err=True)


def _records(socket: Path, stream: str, rate: float) -> Iterator[tuple[Line, bytes]]:
    """Each record's line, also as it came."""
    with contextlib.closing(control.follow(socket, "tap", stream=stream, rate=rate)) as lines:
        for text in lines:
            line = msgspec.json.decode(text, type=Line)
            if line.error:
                raise click.ClickException(line.error)
            if line.time:
                yield line, text.rstrip(b"\n")
            elif sys.stderr.isatty():
                program.say(f"waiting for records of {stream}; Ctrl-C ends", err=True)
