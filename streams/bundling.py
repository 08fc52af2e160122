"""A support bundle: what somebody who helps needs to see of a program, without its secrets.

Of a configuration only keys that are documented are shown, with what the file has for them; what it may lead to
(variables, files) is never read.
"""

from __future__ import annotations

import io
import json
import os
import platform
import ssl
import sys
import tarfile
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from streams import control, program
from streams.config.keys import meanings
from streams.telemetry import client
from streams.telemetry.client import NotAnswered

HIDDEN = "<hidden>"
FREE = ("add", "headers")
"""Tables whose keys are users' own: of these, values are never shown."""
PACKAGES = ("logfwd", "cryptography", "pyopenssl", "msgspec", "zstandard", "uvloop", "structlog", "h11", "aiokafka")
MOST_FILES = 1000

Parts = Iterable[tuple[str, str]]
"""Names of files, with their texts."""


def out_option(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """--out, of a program of this name."""
    return click.option(
        "--out",
        type=click.Path(path_type=Path, dir_okay=False),
        default=Path(f"{name}-support.tar.gz"),
        show_default=True,
        help="The archive to write; one that is there is not replaced.",
    )


def write(out: Path, parts: Parts) -> None:
    """Write an archive that its owner alone may read; ClickException if it cannot be written."""
    try:
        descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise click.ClickException(f"{out} cannot be written: {error.strerror}; name a new file by --out") from error
    folder = out.name.partition(".")[0]
    with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, text in parts:
            entry = tarfile.TarInfo(f"{folder}/{name}")
            data = text.encode(errors="backslashreplace")
            entry.size, entry.mode = len(data), 0o600
            archive.addfile(entry, io.BytesIO(data))
            program.say(name)
    program.say(f"wrote {out}; read it before you give it away")


def versions() -> Iterator[tuple[str, str]]:
    """Of Python, its libraries and the system."""
    from importlib import metadata

    found = {
        "python": sys.version,
        "platform": platform.platform(),
        "openssl": ssl.OPENSSL_VERSION,
        "packages": {name: metadata.version(name) for name in PACKAGES},
    }
    yield "versions.json", as_json(found)


def asked(name: str, socket: Path | None, act: str) -> tuple[str, str]:
    """What the program answers over its control socket, or why it does not."""
    if socket is None:
        return name, as_json({"unknown": "it has no control_socket"})
    try:
        return name, as_json(control.ask(socket, act, seconds=10.0))
    except NotAnswered as error:
        return name, as_json({"unknown": str(error)})


def admin(main: Mapping[str, Any], default: str) -> Iterator[tuple[str, str]]:
    """What its admin address answers."""
    section = main.get("admin", {})
    if section is False:
        return
    address = section.get("address", default) if isinstance(section, Mapping) else default
    for name in ("metrics", "readyz"):
        try:
            yield f"{name}.txt", (client.ask(str(address), f"/{name}") or b"").decode(errors="replace")
        except NotAnswered as error:
            yield f"{name}.txt", f"# {error}\n"


def redacted(path: Path, file: str) -> tuple[dict[str, Any], str]:
    """A file's tables, and what may be shown of them. `file`: the name that its keys are documented under."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        return {}, as_json({"unreadable": error.strerror})
    except ValueError:  # its words might repeat what is there
        return {}, as_json({"unreadable": "it is not TOML; validate says where"})
    return tables, as_json(_shown(tables, "", set(meanings(file))))


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


def sizes(directory: Path) -> str:
    """The files below a directory, with their sizes: the first ones if they are many."""
    found: dict[str, Any] = {}
    try:
        if not directory.is_dir():
            return as_json({"unreadable": "it is not a directory"})
        for each in sorted(directory.rglob("*"))[:MOST_FILES]:
            if not each.is_dir():
                found[str(each.relative_to(directory))] = each.stat().st_size
    except OSError as error:
        found["unreadable"] = error.strerror
    return as_json(found)


def as_json(value: object) -> str:
    """For a person, too."""
    return json.dumps(value, indent=2, default=str) + "\n"
