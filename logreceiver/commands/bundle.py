"""`logreceiver bundle`: what somebody who helps needs to see of a receiver, without its secrets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from logreceiver.commands.options import CONFIG
from streams import bundling

DEFAULT_ADMIN = "127.0.0.1:9465"


@click.command(
    short_help="Collect for support what is no secret.",
    epilog="""\b
Examples:
  logreceiver bundle                    logreceiver-support.tar.gz
  logreceiver bundle --out b.tar.gz     then: tar xzf b.tar.gz, and read it before it is given away""",
)
@CONFIG
@bundling.out_option("logreceiver")
def bundle(path: Path, out: Path) -> None:
    """Collect versions, configuration, status, links and metrics in an archive for whoever helps.

    Of the configuration, the keys that docs/configuration.md lists are shown as the file has them, with no variable
    replaced; defaults of variables, comments and unknown keys are left out. No certificate, key, password or record is
    read. Names of hosts, identities, streams and topics are in it. Its log is not: add what your service manager keeps.

    Exit codes: 0 if it was written, also if the receiver does not run, which is said in it; 1 if it cannot be written.
    """
    bundling.write(out, _parts(path))


def _parts(path: Path) -> Iterator[tuple[str, str]]:
    yield from bundling.versions()
    main, text = bundling.redacted(path, "logreceiver.toml")
    yield "config/logreceiver.json", text
    base = path.absolute().parent
    socket = base / str(main["control_socket"]) if main.get("control_socket") else None
    for act in ("status", "links"):
        yield bundling.asked(f"{act}.json", socket, act)
    yield from bundling.admin(main, DEFAULT_ADMIN)
    sink = main.get("sink")
    if isinstance(sink, dict) and sink.get("type") == "log":
        yield "log_directory.json", bundling.sizes(base / str(sink.get("directory", "")))
