"""The JSON Schema of a configuration file, from the Structs that its reader uses, with the keys as TOML spells them.

msgspec's own schema is not used: it knows neither our spelling of durations and sizes nor paths as defaults.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, Union

import msgspec

from streams.config.toml import BYTES, SECONDS, spelling, without_meta
from streams.config.units import DURATION_PATTERN, SIZE_PATTERN, show_duration, show_size
from streams.config.variables import PATTERN

VARIABLE = {"type": "string", "pattern": PATTERN}
NOTHING_SAID: Mapping[str, str] = {}
PLAIN = {str: "string", Path: "string", int: "integer", float: "number", bool: "boolean"}


def json_schema(
    kind: type[msgspec.Struct], meanings: Mapping[str, str] = NOTHING_SAID, *, hidden: Collection[str] = ()
) -> dict[str, Any]:
    """The schema of a file; `hidden` fields are left out. `meanings`: a sentence for each key's path (keys.py)."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_struct(kind, "", meanings, hidden)}


def _struct(
    kind: type[msgspec.Struct], prefix: str, meanings: Mapping[str, str], hidden: Collection[str] = ()
) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    required = []
    if tag := kind.__struct_config__.tag_field:
        properties[tag] = {"const": kind.__struct_config__.tag, **_described(prefix + tag, meanings)}
        required.append(tag)
    for field in msgspec.structs.fields(kind):
        if field.name in hidden:
            continue
        path = prefix + spelling(field.name)
        schema = {**_type(field.type, field.name, path, meanings), **_described(path, meanings)}
        if field.required:
            required.append(spelling(field.name))
        elif (default := show_default(field)) is not None:
            schema["default"] = default
        properties[spelling(field.name)] = schema
    return {
        "type": "object",
        "description": (kind.__doc__ or "").strip(),
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _described(path: str, meanings: Mapping[str, str]) -> dict[str, Any]:
    return {"description": meanings[path]} if path in meanings else {}


def _type(kind: Any, field: str, path: str, meanings: Mapping[str, str]) -> dict[str, Any]:
    kind, meta = without_meta(kind)
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is Union:
        return _union(typing.get_args(kind), field, path, meanings)
    if typing.get_origin(kind) is tuple:
        array = {"type": "array", "items": _type(typing.get_args(kind)[0], field, f"{path}[]", meanings)}
        return {**array, "minItems": meta.min_length} if meta is not None and meta.min_length else array
    if typing.get_origin(kind) is dict:
        values = typing.get_args(kind)[1]
        return {
            "type": "object",
            "additionalProperties": {"type": [PLAIN[each] for each in typing.get_args(values) or (values,)]},
        }
    if typing.get_origin(kind) is Literal:
        return {"anyOf": [{"enum": list(typing.get_args(kind))}, VARIABLE]}
    if issubclass(kind, msgspec.Struct):
        return _struct(kind, f"{path}.", meanings)
    if meta is not None and meta.extra is not None and "values" in meta.extra:
        return {"anyOf": [{"enum": list(meta.extra["values"]())}, VARIABLE]}
    schema: dict[str, Any] = {"type": PLAIN[kind]}
    if meta is not None and meta.ge is not None:
        schema["minimum"] = meta.ge
    if meta is not None and meta.le is not None:
        schema["maximum"] = meta.le
    if field.endswith((BYTES, SECONDS)):
        pattern = SIZE_PATTERN if field.endswith(BYTES) else DURATION_PATTERN
        return {"anyOf": [schema, {"type": "string", "pattern": pattern}, VARIABLE]}
    return schema if schema["type"] == "string" else {"anyOf": [schema, VARIABLE]}


def _union(kinds: tuple[Any, ...], field: str, path: str, meanings: Mapping[str, str]) -> dict[str, Any]:
    """TOML cannot spell None; where a table may be left out, `false` stands for it."""
    options = [_type(kind, field, path, meanings) for kind in kinds if kind is not type(None)]
    if len(options) < len(kinds) and any(option.get("type") == "object" for option in options):
        options.append({"const": False})
    return options[0] if len(options) == 1 else {"anyOf": options}


def show_default(field: msgspec.structs.FieldInfo) -> Any:
    """A field's default as written in TOML; None if there is no default, or the default is a table."""
    value = field.default
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    if isinstance(value, msgspec.Struct) or value is None or value is msgspec.NODEFAULT:
        return None
    if field.name.endswith(BYTES):
        return show_size(value)
    if field.name.endswith(SECONDS):
        return show_duration(value)
    return list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
