"""docs/records.md and the JSON Schema of records, compared with real records; settings of formats and encodings."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner

from logfwd.cli import main
from logfwd.config import load_forwarder
from logfwd.intake import jsonlines
from logfwd.sources.file.metadata import fields_by_name
from logfwd.sources.formats.encodings import UTF_8, check_encoding
from logfwd.sources.formats.schema import RECORD
from logfwd.sources.formats.text import TextLines, ignore
from logfwd.sources.lines import LineFormat
from logfwd.sources.settings import FileSource, StdinSource
from streams.errors import ConfigError

DOCUMENT = (Path(__file__).parents[4] / "docs" / "records.md").read_text()


def real_records() -> list[bytes]:
    lines = b"plain\n\xff\n" + b"x" * 900 + b"\n" + b"\xff" * 900 + b"\n"
    text = TextLines(300, ignore).feed(lines, 0, UTF_8)
    wrapped = jsonlines.split(lines, invalid="wrap", max_record_bytes=300).values
    container = b'{"log":"x\\n","stream":"stdout","time":"2026-01-31T10:00:00Z","attrs":{"tag":"web"}}\n'
    reader = LineFormat(StdinSource(format="docker"), 300, ignore).reader("")
    assert reader is not None
    name = "/var/log/pods/default_web-0_6f1c/app/0.log"
    fields = fields_by_name(FileSource(paths=(name,), kubernetes=True))
    assert fields is not None
    made = b"{" + fields(name) + b"}"
    return [*map(bytes, wrapped), *text.splitlines(), *reader.feed(container, 0, UTF_8).splitlines(), made]


def test_real_records_are_as_the_schema_says_and_their_fields_are_documented() -> None:
    validator = jsonschema.Draft202012Validator(RECORD)
    jsonschema.Draft202012Validator.check_schema(RECORD)
    records = [json.loads(record) for record in real_records()]
    for record in records:
        validator.validate(record)
    assert {field for record in records for field in record} == set(RECORD["properties"])
    for field in RECORD["properties"]:
        assert f'"{field}"' in DOCUMENT
    assert not validator.is_valid({"message": "x", "part": 1})


def test_the_command_prints_the_schema() -> None:
    result = CliRunner().invoke(main, ["schema", "record"])
    assert json.loads(result.output) == RECORD


@pytest.mark.parametrize("name", ["utf-8", "UTF8", "latin-1", "cp1252", "utf_16", "utf-32-be", "euc-jp", "gb18030"])
def test_an_encoding_is_any_in_which_lines_can_be_cut(name: str) -> None:
    check_encoding(name)


@pytest.mark.parametrize(
    "name", ["", "utf-9", "cp037", "utf-7", "base64", "rot13", "punycode", "unicode_escape", "a\0b"]
)
def test_other_encodings_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is not an encoding of lines of text; write one of Python's"):
        check_encoding(name)


def problems_of(directory: Path, source: str) -> list[str]:
    (directory / "streams.d").mkdir()
    (directory / "logfwd.toml").write_text('state_dir = "state"\nreceivers = ["localhost:1"]\n')
    (directory / "streams.d" / "s.toml").write_text(f'name = "s"\n[source]\ntype = "stdin"\n{source}\n')
    with pytest.raises(ConfigError) as caught:
        load_forwarder(directory / "logfwd.toml")
    return [f"{problem.key}: {problem.message}" for problem in caught.value.problems if problem.path.name == "s.toml"]


def test_validate_names_key_and_remedy_of_a_format_that_does_not_exist(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, 'format = "txt"')
    assert problem.startswith("source.format: 'txt' is not known; write \"json\" or ")
    assert "did you mean 'text'?" in problem


def test_validate_names_key_and_remedy_of_an_encoding_without_text(tmp_path: Path) -> None:
    assert problems_of(tmp_path, 'encoding = "latin-1"') == [
        'source.encoding: is for format = "text"; lines of format = "json" are not decoded, so remove it'
    ]


def test_validate_names_key_and_remedy_of_an_unknown_encoding(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, 'format = "text"\nencoding = "utf-9"')
    assert problem.startswith("source.encoding: 'utf-9' is not an encoding of lines of text; write one of Python's")


def test_validate_refuses_fields_for_records_that_are_not_parsed(tmp_path: Path) -> None:
    raw = 'format = "raw"\n[add]\nhost = "web-1"'
    assert problems_of(tmp_path, raw) == [
        'add: cannot be used with source.format = "raw", whose records are not parsed; remove it'
    ]


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (
            '[source.multiline]\nstart = "^a"',
            'source.multiline: is for format = "text", "cri" or "docker", not "json"; remove it',
        ),
        (
            'format = "text"\n[source.multiline]\nmax_lines = 5',
            "source.multiline: needs either start or continue, a regular expression; write one of them",
        ),
        (
            'format = "text"\n[source.multiline]\nstart = "a"\ncontinue = "b"',
            "source.multiline: needs either start or continue, a regular expression; write one of them",
        ),
        (
            'format = "text"\n[source.multiline]\ncontinue = "(?=a)"',
            "source.multiline.continue: '(?=a)' is not a pattern of RE2 (invalid perl operator: (?=); "
            "see https://github.com/google/re2/wiki/Syntax",
        ),
    ],
)
def test_validate_names_key_and_remedy_of_multiline(tmp_path: Path, source: str, problem: str) -> None:
    assert problems_of(tmp_path, source) == [problem]
