"""`logfwd bundle`: what somebody who helps needs to see of a forwarder, without its secrets."""

from __future__ import annotations

import io
import json
import os
import platform
import ssl
import sys
import tarfile
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from logfwd.commands.options import CONFIG, socket_of
from streams import control, program
from streams.config.keys import meanings
from streams.telemetry import client
from streams.telemetry.client import NotAnswered

HIDDEN = "<hidden>"
FREE = ("add", "headers")
"""Tables whose keys are users' own: of these, values are never shown."""
PACKAGES = ("logfwd", "cryptography", "pyopenssl", "msgspec", "zstandard", "uvloop", "structlog", "aiohttp")
DEFAULT_ADMIN = "127.0.0.1:9464"


@click.command(
    short_help="Collect for support what is no secret.",
    epilog="""\b
Examples:
  logfwd bundle                    logfwd-support.tar.gz
  logfwd bundle --out b.tar.gz     then: tar xzf b.tar.gz, and read it before it is given away""",
)
@CONFIG
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("logfwd-support.tar.gz"),
    show_default=True,
    help="The archive to write; one that is there is not replaced.",
)
def bundle(path: Path, out: Path) -> None:
    """Collect versions, configuration, status and metrics in an archive for whoever helps.

    Of the configuration, the keys that docs/configuration.md lists are shown as the files have them, with no variable
    replaced; the values in [add] and headers, defaults of variables, comments and unknown keys are left out. No
    certificate, key, token, password or record is read. Names of hosts, streams and files are in it. Its log is not:
    add what your service manager keeps.

    Exit codes: 0 if it was written, also if the forwarder does not run, which is said in it; 1 if it cannot be written.
    """
    try:
        descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise click.ClickException(f"{out} cannot be written: {error.strerror}; name a new file by --out") from error
    with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, text in _parts(path):
            entry = tarfile.TarInfo(f"logfwd-support/{name}")
            data = text.encode(errors="backslashreplace")
            entry.size, entry.mode = len(data), 0o600
            archive.addfile(entry, io.BytesIO(data))
            program.say(name)
    program.say(f"wrote {out}; read it before you give it away")


def _parts(path: Path) -> Iterator[tuple[str, str]]:
    yield "versions.json", _json(_versions())
    main, text = _redacted(path, "logfwd.toml")
    yield "config/logfwd.json", text
    directory = path.absolute().parent / str(main.get("streams_dir", "streams.d"))
    for file in sorted(directory.glob("*.toml")):
        yield f"config/streams.d/{file.stem}.json", _redacted(file, "streams.d/NAME.toml")[1]
    try:
        yield "status.json", _json(control.ask(socket_of(path), "status", seconds=10.0))
    except (NotAnswered, click.ClickException, SystemExit) as error:
        yield "status.json", _json({"unknown": str(error)})
    admin = main.get("admin", {})
    if admin is not False:
        address = admin.get("address", DEFAULT_ADMIN) if isinstance(admin, Mapping) else DEFAULT_ADMIN
        for name in ("metrics", "readyz"):
            yield f"{name}.txt", _asked(str(address), f"/{name}")
    state = path.absolute().parent / str(main.get("state_dir", ""))
    yield "state_dir.json", _json(_sizes(state) if main.get("state_dir") else {})


def _versions() -> dict[str, Any]:
    from importlib import metadata

    return {
        "python": sys.version,
        "platform": platform.platform(),
        "openssl": ssl.OPENSSL_VERSION,
        "packages": {name: metadata.version(name) for name in PACKAGES},
    }


def _redacted(path: Path, file: str) -> tuple[dict[str, Any], str]:
    """A file's tables, and what may be shown of them."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        return {}, _json({"unreadable": error.strerror})
    except ValueError:  # its words might repeat what is there
        return {}, _json({"unreadable": "it is not TOML; logfwd validate says where"})
    return tables, _json(_shown(tables, "", set(meanings(file))))


def _shown(value: Any, path: str, known: set[str]) -> Any:
    """What `known` keys have, and nothing else."""
    if isinstance(value, dict):
        nested = {name: (f"{path}.{name}" if path else name) for name in value}
        return {
            (name if _is_known(nested[name], known) else HIDDEN): _shown(each, nested[name], known)
            for name, each in value.items()
        }
    if isinstance(value, list):
        return [_shown(each, f"{path}[]" if isinstance(each, dict) else path, known) for each in value]
    if path not in known or path.split(".", maxsplit=1)[0] in FREE:
        return HIDDEN
    return HIDDEN if isinstance(value, str) and "${" in value and ":-" in value else value


def _is_known(path: str, known: set[str]) -> bool:
    return path in known or any(each.startswith((f"{path}.", f"{path}[")) for each in known)


def _asked(address: str, path: str) -> str:
    try:
        return (client.ask(address, path) or b"").decode(errors="replace")
    except NotAnswered as error:
        return f"# {error}\n"


def _sizes(directory: Path) -> dict[str, Any]:
    try:
        return {each.name: each.stat().st_size for each in sorted(directory.iterdir())}
    except OSError as error:
        return {"unreadable": error.strerror}


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, default=str) + "\n"
