"""A TOML file to a frozen msgspec Struct, with every problem found, not only the first.

msgspec alone reports one error, and the standard library's parser gives no lines for values, so fields are converted
one by one and a problem names its file and key path (`batch.linger`). The Struct is the only description of a file:

* a field ending `_bytes` takes a size ("900KiB"); one ending `_seconds` takes a duration ("200ms"), and its key in TOML
  drops the suffix (`linger`);
* the `msgspec.Meta` of a field's type says which values are allowed: ranges, and the checks of kinds.py;
* relative paths and globs start in the directory of the configuration;
* a field of type `dict` takes a table whose keys may be anything, and whose values are texts, numbers, true or false;
* `false` stands for None where a table may be left out (`admin = false`);
* `${…}` in strings is replaced (variables.py). A number, or true and false, may be written as such a string.
"""

from __future__ import annotations

import difflib
import math
import tomllib
import types
import typing
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

import msgspec
from msgspec import Meta

from streams.config.units import parse_duration, parse_size, show_duration, show_size
from streams.config.variables import Bare, Expanded, FromFile, Unresolved, expand
from streams.errors import ConfigError, Problem

MAX_FILE_BYTES = 1024 * 1024
MAX_INT = 2**63 - 1
SECONDS = "_seconds"
BYTES = "_bytes"

T = TypeVar("T", bound=msgspec.Struct)
Table = dict[str, Any]
Fault = tuple[str, str]
"""Key and message; the message names the remedy."""


class _Wrong(Exception):
    """A value cannot be used; its problems have been noted."""


def parse(path: Path, base: Path | None = None, *, draft: str | None = None) -> Table:
    """The file's table, with its variables replaced; raises ConfigError if it cannot be read, is not TOML, or is blank.

    A variable that is not set is a problem of its key, which `convert` reports. A `draft` is what the file is to have.
    """
    data = _read(path) if draft is None else draft.encode()
    if len(data) > MAX_FILE_BYTES:
        raise _refusal(path, "is larger than 1 MiB; this is not a configuration")
    try:
        table = tomllib.loads(data.decode("utf-8-sig"))  # editors on Windows write a byte order mark
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _refusal(path, f"is not UTF-8 (line {line})") from error
    except ValueError as error:  # TOMLDecodeError, and what int() finds too long
        raise _refusal(path, f"is not TOML: {error}") from error
    except RecursionError as error:
        raise _refusal(path, "is nested too deeply") from error
    if not table:
        raise _refusal(path, "is blank; nothing is taken from a blank file")
    expanded: Table = expand(table, path.absolute().parent if base is None else base)
    return expanded


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        remedy = "; create it, or name another with --config" if isinstance(error, FileNotFoundError) else ""
        raise _refusal(path, f"cannot be read: {error.strerror}{remedy}") from error


def convert(
    table: Table,
    kind: type[T],
    *,
    path: Path,
    base: Path,
    problems: list[Problem],
    hidden: Collection[str] = (),
    opens_files: bool = True,
) -> T | None:
    """The Struct; everything that is wrong is added to `problems`.

    A wrong value is replaced by its default so that the caller can check the rest; the result is None if a wrong
    value has no default. `hidden` fields are not in the file; the caller fills them. `opens_files`: whether the files
    that are named have to be readable.
    """
    try:
        return _Reader(path, base, problems, opens_files).struct(table, kind, "", hidden)
    except _Wrong:
        return None


def add(problems: list[Problem], path: Path, faults: Iterable[Fault]) -> None:
    """Note faults (key, message) of a Struct, except those that only follow from a key already reported."""
    troubled = [problem.key for problem in problems if problem.path == path]
    for key, message in faults:
        if not any(key == other or _inside(key, other) or _inside(other, key) for other in troubled):
            problems.append(Problem(path, key, message))


def _inside(key: str, table: str) -> bool:
    return key.startswith((f"{table}.", f"{table}["))


def spelling(field: str) -> str:
    """A field's key in TOML. One that is a word of Python has `_` after it."""
    return field.removesuffix(SECONDS).removesuffix("_")


def _refusal(path: Path, message: str) -> ConfigError:
    return ConfigError([Problem(path, "", message)])


class _Reader:
    """Converts the values of one file and notes every problem."""

    def __init__(self, path: Path, base: Path, problems: list[Problem], opens_files: bool) -> None:
        self._opens_files = opens_files
        self._path = path
        self._base = base
        self._problems = problems

    def struct(self, value: object, kind: type[T], key: str, hidden: Collection[str] = ()) -> T:
        """Convert every field, so that every problem is found; raises _Wrong if a required one has no value."""
        table = self._table(value, key)
        fields = {spelling(field.name): field for field in msgspec.structs.fields(kind) if field.name not in hidden}
        tag = kind.__struct_config__.tag_field
        known = [*fields, *([tag] if tag else [])]
        self._note_unknown(table, kind, known, key)
        values, lacking = {}, False
        for name, field in fields.items():
            where = _join(key, name)
            if name in table:
                try:
                    values[field.name] = self._value(table[name], field.type, field.name, where)
                except _Wrong:
                    lacking = lacking or field.required
            elif field.required:
                self._note(where, f"is missing; {_wanted(field.type, where)}")
                lacking = True
        if lacking:
            raise _Wrong
        return kind(**values)

    def _table(self, value: object, key: str) -> Table:
        if not isinstance(value, dict):
            self._refuse(key, f"{_show(value)} is not a table; write [{key}]")
        return value

    def _note_unknown(self, table: Table, kind: type[msgspec.Struct], known: list[str], key: str) -> None:
        for name in table:
            if name not in known:
                self._note(_join(key, name), f"is not known here{_hint(name, kind, known, key)}")

    def _value(self, value: object, kind: Any, field: str, key: str) -> Any:
        if isinstance(value, Unresolved):
            self._refuse(key, value.problem)
        kind, meta = without_meta(kind)
        if isinstance(kind, types.UnionType) or typing.get_origin(kind) is Union:
            return self._union(value, typing.get_args(kind), field, key)
        if typing.get_origin(kind) is tuple:
            return self._list(value, typing.get_args(kind)[0], meta, field, key)
        if typing.get_origin(kind) is dict:
            return self._mapping(value, typing.get_args(kind)[1], key)
        if typing.get_origin(kind) is Literal:
            return self._choice(value, typing.get_args(kind), key)
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            return self.struct(value, kind, key)
        return self._leaf(value, kind, meta, field, key)

    def _union(self, value: object, kinds: tuple[Any, ...], field: str, key: str) -> Any:
        structs = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, msgspec.Struct)]
        others = [kind for kind in kinds if kind is not type(None)]
        if len(others) < len(kinds) and structs and value is False:
            return None
        if len(others) == 1:
            return self._value(value, others[0], field, key)
        tags = {str(kind.__struct_config__.tag): kind for kind in structs}
        table = self._table(value, key)
        tag = table.get("type")
        if isinstance(tag, Unresolved):
            self._refuse(_join(key, "type"), tag.problem)
        if not isinstance(tag, str) or tag not in tags:
            state = "is missing" if tag is None else f"{_show(tag)} is not known"
            self._refuse(_join(key, "type"), f"{state}; write {_either(tags)}{_did_you_mean(tag, tags)}")
        return self.struct(table, tags[tag], key)

    def _list(self, value: object, kind: Any, meta: Meta | None, field: str, key: str) -> tuple[Any, ...]:
        if not isinstance(value, list):
            inner, _ = without_meta(kind)
            tables = isinstance(inner, type) and issubclass(inner, msgspec.Struct)
            self._refuse(key, f"is not a list; write [[{key}]]" if tables else f'is not a list; write {key} = ["…"]')
        if not value and meta is not None and meta.min_length:
            self._refuse(key, "is empty; name at least one")
        values, wrong = [], False
        for index, item in enumerate(value):
            try:
                values.append(self._value(item, kind, field, f"{key}[{index}]"))
            except _Wrong:
                wrong = True
        if wrong:
            raise _Wrong
        return tuple(values)

    def _mapping(self, value: object, kinds: Any, key: str) -> dict[str, Any]:
        values, wrong = {}, False
        for name, item in self._table(value, key).items():
            try:
                values[name] = self._scalar(item, typing.get_args(kinds) or (kinds,), _join(key, name))
            except _Wrong:
                wrong = True
        if wrong:
            raise _Wrong
        return values

    def _scalar(self, value: object, kinds: tuple[type, ...], key: str) -> Any:
        if isinstance(value, Unresolved):
            self._refuse(key, value.problem)
        if isinstance(value, str) and str in kinds:
            return str(value)
        if type(value) not in kinds:
            others = "" if kinds == (str,) else ", a number, or true or false"
            self._refuse(key, f'{_show(value)} is not a text{others}; write "…"')
        if (isinstance(value, float) and not math.isfinite(value)) or (isinstance(value, int) and abs(value) > MAX_INT):
            self._refuse(key, f"{_show(value)} is not a number that JSON has; write it as a text")
        return value

    def _choice(self, value: object, choices: tuple[str, ...], key: str) -> Any:
        if isinstance(value, FromFile):
            self._refuse_file(value, key)
        if value not in choices:
            self._refuse(key, f"{_show(value)} is not known; write {_either(choices)}{_did_you_mean(value, choices)}")
        return choices[choices.index(str(value))]

    def _leaf(self, value: object, kind: Any, meta: Meta | None, field: str, key: str) -> Any:
        if kind not in (str, Path):
            if isinstance(value, FromFile):
                self._refuse_file(value, key)
            value = value.meant(kind) if isinstance(value, Expanded) else value
        if field.endswith((BYTES, SECONDS)):
            try:
                number = parse_size(value) if field.endswith(BYTES) else parse_duration(value)
            except ValueError as error:
                self._refuse(key, str(error))
            return self._within(number, meta, field, key)
        if kind in (str, Path):
            if not isinstance(value, str):
                self._refuse(key, f'{_show(value)} is not a text; write "…"')
            return self._text(value, kind, meta, key)
        if type(value) is not kind:
            self._refuse(key, f"{_show(value)} is not {'true or false' if kind is bool else 'a whole number'}")
        return self._within(value, meta, field, key) if kind is int else value

    def _text(self, value: str, kind: type, meta: Meta | None, key: str) -> Any:
        wishes = (meta.extra or {}) if meta is not None else {}
        is_path = kind is Path or "path" in wishes
        if isinstance(value, FromFile) and (is_path or "shown" in wishes):
            self._refuse_file(value, key)
        if isinstance(value, Bare) and is_path:
            name = f"${value.name}"
            self._refuse(key, f"{name} is not replaced; write ${{{value.name}}}, or ${name} for the characters {name}")
        if check := wishes.get("check"):
            try:
                check(value)
            except ValueError as error:
                self._note(key, str(error) if not isinstance(value, FromFile) else value.fault)
        if not is_path:
            return str(value)
        if not value or "\0" in value:
            self._refuse(key, "is empty; write a path" if not value else "holds a NUL; write a path")
        path = self._base / value
        if self._opens_files and (remedy := wishes.get("remedy")):
            self._try_to_open(path, remedy, key)
        return path if kind is Path else str(path)

    def _try_to_open(self, path: Path, remedy: str, key: str) -> None:
        try:
            with path.open("rb"):
                pass
        except OSError as error:
            remedy = "run this as its user" if isinstance(error, PermissionError) else remedy
            self._note(key, f"{path} cannot be read: {error.strerror}; {remedy}")

    def _within(self, number: Any, meta: Meta | None, field: str, key: str) -> Any:
        low, high = (meta.ge, meta.le) if meta is not None else (None, None)
        show = _shower(field)
        bounds = []
        if low is not None and number < low:
            bounds.append(f"at least {show(low)}")
        if high is not None and number > high:
            bounds.append(f"at most {show(high)}")
        if bounds:
            self._refuse(key, f"is {show(number)}; it must be {' and '.join(bounds)}")
        return number

    def _refuse_file(self, value: FromFile, key: str) -> typing.NoReturn:
        self._refuse(key, f"{value!r} cannot come from a file, because logs show it; write it here, or use ${{NAME}}")

    def _note(self, key: str, message: str) -> None:
        self._problems.append(Problem(self._path, key, message))

    def _refuse(self, key: str, message: str) -> typing.NoReturn:
        self._note(key, message)
        raise _Wrong


# -- words for messages ------------------------------------------------------------------------------------------


def _hint(name: str, kind: type[msgspec.Struct], known: list[str], key: str) -> str:
    """Where an unknown key may belong."""
    if spelling(name) in known:
        return f'; write {_join(key, spelling(name))} = "200ms"'
    for field in msgspec.structs.fields(kind):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            inner = [spelling(each.name) for each in msgspec.structs.fields(field.type)]
            if spelling(name) in inner:
                return f"; it belongs to [{_join(key, field.name)}]"
    return _did_you_mean(name, known) or f"; known are: {', '.join(known) or 'none'}"


def _did_you_mean(given: object, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(given), list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _either(choices: Iterable[str]) -> str:
    return " or ".join(f'"{choice}"' for choice in choices)


def _wanted(kind: Any, field: str) -> str:
    kind, _ = without_meta(kind)
    inner = without_meta(typing.get_args(kind)[0])[0] if typing.get_origin(kind) is tuple else kind
    many = inner is not kind
    if typing.get_origin(inner) in (Union, types.UnionType) or (
        isinstance(inner, type) and issubclass(inner, msgspec.Struct)
    ):
        return f"add [[{field}]]" if many else f"add [{field}]"
    return f"add {field} = {'[…]' if many else '…'}"


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _shower(field: str) -> Callable[[float], str]:
    if field.endswith(BYTES):
        return show_size
    return show_duration if field.endswith(SECONDS) else str


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def without_meta(kind: Any) -> tuple[Any, Meta | None]:
    """A type and its Meta, if it is Annotated."""
    if typing.get_origin(kind) is typing.Annotated:
        inner, *more = typing.get_args(kind)
        return inner, next((each for each in more if isinstance(each, Meta)), None)
    return kind, None
