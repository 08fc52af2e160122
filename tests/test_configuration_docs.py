"""docs/configuration.md has every key of every file with its default, and no other key."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Union

import msgspec
import pytest

from logfwd.config import NOT_IN_THE_FILE, ForwarderConfig
from logfwd.definition import Stream
from logreceiver.config import ReceiverConfig
from logreceiver.sinks.settings import KafkaSink, LogSink
from streams.config.schema import show_default
from streams.config.toml import spelling, without_meta

DOCUMENT = (Path(__file__).parent.parent / "docs" / "configuration.md").read_text()


def keys_of(kind: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key path of a Struct, with its default as TOML writes it."""
    if tag := kind.__struct_config__.tag_field:
        yield f"{prefix}{tag}", None
    for field in msgspec.structs.fields(kind):
        if kind is ForwarderConfig and field.name in NOT_IN_THE_FILE:  # filled in by the loader
            continue
        tables, many = tables_in(field.type)
        key = f"{prefix}{spelling(field.name)}"
        for table in tables:
            yield from keys_of(table, f"{key}[]." if many else f"{key}.")
        if not tables:
            yield key, show_default(field)


def tables_in(kind: Any) -> tuple[list[Any], bool]:
    kind, _ = without_meta(kind)
    many = typing.get_origin(kind) is tuple
    if many:
        kind, _ = without_meta(typing.get_args(kind)[0])
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) or typing.get_origin(kind) is Union else [kind]
    return [each for each in options if isinstance(each, type) and issubclass(each, msgspec.Struct)], many


def section(title: str) -> dict[str, str]:
    """Key → default, of the tables under one heading."""
    text = DOCUMENT.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| `")]
    return {row[0].strip(" `"): row[1].strip() for row in rows}


@pytest.mark.parametrize(
    ("title", "kind"),
    [("logfwd.toml", ForwarderConfig), ("streams.d/NAME.toml", Stream), ("logreceiver.toml", ReceiverConfig)],
)
def test_every_key_is_documented_with_its_default(title: str, kind: type[msgspec.Struct]) -> None:
    documented, defaults = section(title), dict(keys_of(kind))
    assert set(documented) == set(defaults)
    for key, default in defaults.items():
        if default is not None and default != []:
            assert documented[key] == f"`{json.dumps(default)}`", key


def test_both_sinks_are_read_from_the_same_document() -> None:
    assert {key for sink in (LogSink, KafkaSink) for key, _ in keys_of(sink, "sink.")} < set(
        section("logreceiver.toml")
    )


def test_every_mode_is_documented() -> None:
    from streams.security.modes import MODES

    assert all(f"`{mode}`" in DOCUMENT for mode in MODES)
