"""One source says what every key means: the docs are written from it, and the JSON Schemas carry it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from bench.dashboard.configuration import FILES, PAGE, written
from bench.lab.site import command
from streams.config.keys import keys, meanings
from streams.security.modes import MODES

SCHEMAS = {
    "logfwd.toml": ("logfwd", "logfwd"),
    "streams.d/NAME.toml": ("logfwd", "stream"),
    "logreceiver.toml": ("logreceiver", ""),
}


def schema_of(file: str) -> Any:
    """What the program prints."""
    program, kind = SCHEMAS[file]
    argv = [command(program), "schema", *filter(None, [kind])]
    return json.loads(subprocess.run(argv, capture_output=True, check=True, timeout=60).stdout)


def described(schema: Any, prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every key path of a schema that is no table of its own, with the key's schema."""
    options = [each for each in (schema, *schema.get("anyOf", ())) if "properties" in each]
    for option in options:
        for key, value in option["properties"].items():
            path = f"{prefix}{key}"
            tables = list(described(value, f"{path}."))
            if items := value.get("items"):
                tables += described(items, f"{path}[].")
            yield from tables or [(path, value)]


def test_the_docs_are_written_from_the_same_source() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == written(page), "run python -m bench.dashboard.configuration"
    (first, *_) = keys("logfwd.toml")
    other = page.replace(first.meaning, "Something else.")
    assert other != page == written(other), "a difference is noticed, and mended"


@pytest.mark.parametrize("file", FILES)
def test_a_schema_says_of_every_key_what_it_means(file: str) -> None:
    schema = schema_of(file)
    jsonschema.Draft202012Validator.check_schema(schema)
    said = {path: value.get("description") for path, value in described(schema)}
    assert said == meanings(file)


def test_a_schema_has_the_allowed_values_and_defaults() -> None:
    stream = jsonschema.Draft202012Validator(schema_of("streams.d/NAME.toml"))
    security = stream.schema["properties"]["security"]
    assert security["anyOf"][0]["enum"] == list(MODES)
    assert security["default"] == "hybrid"
    source = {"type": "file", "paths": ["a"]}
    assert stream.is_valid({"name": "a", "source": source, "security": "pq-auth"})
    assert stream.is_valid({"name": "a", "source": source, "security": "${MODE}"})
    assert not stream.is_valid({"name": "a", "source": source, "security": "hybird"})
    assert not stream.is_valid({"name": "a", "source": source, "codec": "gzip"})
