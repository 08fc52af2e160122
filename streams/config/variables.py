"""`${…}` in the strings of a configuration: the environment's variables, and the content of files.

    ${NAME}             the environment variable NAME; ${HOSTNAME} is the host's name where the environment lacks it
    ${NAME:-default}    the same, and `default` where it is not set, or empty
    ${file:PATH}        the content of a file without the newlines at its end; a relative path starts in the
                        directory of the configuration
    $$                  a dollar sign

Every other `$` stands for itself. Keys are not expanded, and neither is text that was put in.
A string that cannot be expanded becomes `Unresolved`, so that the reader of the table reports it with its key among the
other problems. Files may hold secrets, so `FromFile` remembers what to show in their place.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

MAX_FILE_BYTES = 64 * 1024
PATTERN = r"\$\{"
"""Found in strings that hold a variable; for JSON Schemas."""

_PLACE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<inner>[^}]*)(?P<end>\}?)|(?P<bare>[A-Za-z_][A-Za-z0-9_]*))")
_NAMED = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>.*))?", re.DOTALL)
_FILE = "file:"


class Expanded(str):
    """A string in which something was replaced."""

    __slots__ = ()

    def meant(self, kind: type) -> object:
        """The number, or true or false, that it stands for where a key takes one; else the string itself."""
        if kind is bool:
            return {"true": True, "false": False}.get(self, self)
        if re.fullmatch(r"[0-9]{1,19}", self):
            return int(self)
        return float(self) if re.fullmatch(r"[0-9]{1,19}\.[0-9]{1,19}", self) else self


class FromFile(Expanded):
    """A string that holds the content of a file, which must not be shown; `written` is what the configuration says."""

    __slots__ = ("written",)
    written: str

    def __repr__(self) -> str:
        return repr(self.written)

    @property
    def fault(self) -> str:
        """What to say of a content that is not valid; a check's own words may show it."""
        return f"the content of {self!r} is not valid here; correct the file"


class Bare(str):
    """A string with `$NAME` in it, which is not replaced; in a path that is a mistake. `name` is the first of them."""

    __slots__ = ("name",)
    name: str


class Unresolved(NamedTuple):
    """Stands for a string that cannot be expanded; the problem names the remedy."""

    problem: str


class _Unknown(Exception):
    """One place of a string cannot be replaced; the message names the remedy."""


def expand(value: Any, base: Path, environment: Mapping[str, str] = os.environ) -> Any:
    """The value with every string in it expanded, in tables and lists, too. Never raises."""
    if isinstance(value, dict):
        return {key: expand(each, base, environment) for key, each in value.items()}
    if isinstance(value, list):
        return [expand(each, base, environment) for each in value]
    return _expanded(value, base, environment) if isinstance(value, str) and "$" in value else value


def _expanded(text: str, base: Path, environment: Mapping[str, str]) -> str | Unresolved:
    has_file, bare = False, ""

    def replaced(place: re.Match[str]) -> str:
        nonlocal has_file, bare
        if place["dollar"]:
            return "$"
        if place["bare"]:
            bare = bare or place["bare"]
            return place[0]
        if not place["end"]:
            raise _Unknown(f"{place[0]!r} has no closing brace; add it, or write $$ for a dollar sign")
        if place["inner"].startswith(_FILE):
            has_file = True
            return _content(base / place["inner"].removeprefix(_FILE))
        return _variable(place["inner"], environment)

    try:
        expanded = _PLACE.sub(replaced, text)
    except _Unknown as error:
        return Unresolved(str(error))
    if has_file:
        secret = FromFile(expanded)
        secret.written = text
        return secret
    if bare:
        unchanged = Bare(expanded)
        unchanged.name = bare
        return unchanged
    return Expanded(expanded)


def _variable(inner: str, environment: Mapping[str, str]) -> str:
    found = _NAMED.fullmatch(inner)
    if found is None or "${" in inner:
        raise _Unknown(
            f"'${{{inner}}}' is not a variable; write ${{NAME}}, ${{NAME:-default}} or ${{file:PATH}}, "
            "or $${ for the characters themselves"
        )
    name, default = found["name"], found["default"]
    value = environment.get(name)
    if value is None and name == "HOSTNAME":
        value = socket.gethostname()
    if default is not None and not value:
        return default
    if value is None:
        raise _Unknown(
            f"the environment has no variable {name}; set it, or write ${{{name}:-default}}, "
            "or $${ for the characters themselves"
        )
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _Unknown(f"the environment variable {name} is not UTF-8; set it to text") from None
    return value


def _content(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else "a path holds no NUL"
        raise _Unknown(f"{path} cannot be read: {reason}; create it, or name another file") from None
    if len(data) > MAX_FILE_BYTES:
        raise _Unknown(f"{path} is larger than {MAX_FILE_BYTES // 1024} KiB; name a file that holds just the value")
    try:
        text = data.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise _Unknown(f"{path} is not UTF-8; name a text file") from None
    if not text:
        raise _Unknown(f"{path} is empty; write the value into it")
    return text
