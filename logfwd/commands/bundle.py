"""`logfwd bundle`: what somebody who helps needs to see of a forwarder, without its secrets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from logfwd.commands.options import CONFIG
from streams import bundling, control

DEFAULT_ADMIN = "127.0.0.1:9464"


@click.command(
    short_help="Collect for support what is no secret.",
    epilog="""\b
Examples:
  logfwd bundle                    logfwd-support.tar.gz
  logfwd bundle --out b.tar.gz     then: tar xzf b.tar.gz, and read it before it is given away""",
)
@CONFIG
@bundling.out_option("logfwd")
def bundle(path: Path, out: Path) -> None:
    """Collect versions, configuration, status and metrics in an archive for whoever helps.

    Of the configuration, the keys that docs/configuration.md lists are shown as the files have them, with no variable
    replaced; the values in [add] and headers, defaults of variables, comments and unknown keys are left out. No
    certificate, key, token, password or record is read. Names of hosts, streams and files are in it. Its log is not:
    add what your service manager keeps.

    Exit codes: 0 if it was written, also if the forwarder does not run, which is said in it; 1 if it cannot be written.
    """
    bundling.write(out, _parts(path))


def _parts(path: Path) -> Iterator[tuple[str, str]]:
    yield from bundling.versions()
    main, text = bundling.redacted(path, "logfwd.toml")
    yield "config/logfwd.json", text
    base = path.absolute().parent
    for file in sorted((base / str(main.get("streams_dir", "streams.d"))).glob("*.toml")):
        yield f"config/streams.d/{file.stem}.json", bundling.redacted(file, "streams.d/NAME.toml")[1]
    state = base / str(main["state_dir"]) if main.get("state_dir") else None
    yield bundling.asked("status.json", state and control.in_directory(state), "status")
    yield from bundling.admin(main, DEFAULT_ADMIN)
    if state is not None:
        yield "state_dir.json", bundling.sizes(state)
