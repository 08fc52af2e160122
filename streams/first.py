"""What both `init` commands share: a certificate for this host, and files that are written together or not at all."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from streams import program
from streams.errors import ConfigError
from streams.files import create_file
from streams.security.pki import Authority, LeafFiles, PkiError

FILE_MODE = 0o640
SITE = "spiffe://logfwd"
"""Where identities begin that nobody chose."""


def host_name() -> str:
    """This host's name without its domain."""
    return socket.gethostname().partition(".")[0].lower() or "localhost"


class First:
    """The files of a first configuration."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._written: list[Path] = []

    def leaf(self, pki: Path, name: str, *, identity: str, hosts: Sequence[str] = ()) -> None:
        """Have `pki` hold NAME.pem and NAME.key: those that are there, or issued now by its authority."""
        if (pki / f"{name}.pem").exists() and (pki / f"{name}.key").exists():
            program.say(f"uses {pki / name}.pem")
            return
        if not (pki / "ca.key").exists():
            issue = (
                f"logfwd pki issue … --out {name} --identity {identity}{''.join(f' --host {each}' for each in hosts)}"
            )
            raise click.ClickException(
                f"{pki} has neither {name}.pem with its key, nor a ca.key to issue them; copy {name}.pem, {name}.key "
                f"and ca.pem there from where `{issue}` was run, or create an authority: logfwd pki init {pki}"
            )
        try:
            made: LeafFiles = Authority.load(pki).issue(identities=[identity], hosts=hosts, out=pki / name)
        except PkiError as error:
            raise click.ClickException(str(error)) from error
        self._note(made.certificate)
        self._note(made.key)

    def write(self, name: str, text: str) -> None:
        """Create a file, in a directory below if it has one."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        create_file(path, text.encode(), mode=FILE_MODE)
        self._note(path)

    def _note(self, path: Path) -> None:
        self._written.append(path)
        program.say(f"created {path}")

    def undo(self) -> None:
        for path in self._written:
            path.unlink(missing_ok=True)


def as_written(pki: Path, directory: Path) -> Path:
    """How a configuration in `directory` names the directory of its certificates."""
    return Path("pki") if pki.absolute() == (directory / "pki").absolute() else pki.absolute()


@contextlib.contextmanager
def writing(directory: Path, name: str) -> Iterator[First]:
    """Write in this block; if it fails, or what was written cannot be used, nothing of it stays.

    `name`: the configuration, which must not be there yet.
    """
    if (directory / name).exists():
        raise click.ClickException(f"{directory / name} exists, and nothing is overwritten")
    first = First(directory)
    try:
        yield first
    except FileExistsError as error:
        first.undo()
        raise click.ClickException(f"{error.filename2 or error.filename} exists, and nothing is overwritten") from error
    except ConfigError as error:
        first.undo()
        program.refuse_config(error)
    except OSError as error:
        first.undo()
        raise click.ClickException(str(error)) from error
    except BaseException:
        first.undo()
        raise
