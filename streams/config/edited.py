"""TOML that commands write: files made from values, and a key changed in a file while the rest of it stays."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_TABLE = re.compile(r"^\s*\[", re.MULTILINE)


def text_of(table: Mapping[str, Any]) -> str:
    """A file with these keys."""
    return "\n".join(_lines(table, ())).lstrip("\n") + "\n"


def shown(value: object) -> str:
    """A value as a file has it: a text in quotes, true or false, a number, a list, a table."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{_key(name)} = {shown(each)}' for name, each in value.items())} }}"
    return str(value)


def value_of(text: str) -> Any:
    """What somebody wrote as a value: TOML such as 5, true or ["a"]; anything else is a text."""
    try:
        table = tomllib.loads(f"value = {text}\n")
    except ValueError:
        return text
    return table["value"] if len(table) == 1 else text


def with_key(text: str, key: str, value: object) -> str:
    """The text of a file with this key, which is in no table, changed or put in front."""
    if key in tomllib.loads(text):
        found = _TABLE.search(text)
        end = found.start() if found else len(text)
        changed = (
            re.sub(rf"(?m)^\s*{key}\s*=.*$", lambda _: f"{key} = {shown(value)}", text[:end], count=1) + text[end:]
        )
    else:
        changed = f"{key} = {shown(value)}\n{text}"
    assert tomllib.loads(changed) == {**tomllib.loads(text), key: value}
    return changed


def _lines(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    for key, value in table.items():
        if not isinstance(value, Mapping):
            yield f"{_key(key)} = {shown(value)}"
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield f"\n[{'.'.join(map(_key, (*path, key)))}]"
            yield from _lines(value, (*path, key))


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else shown(name)
