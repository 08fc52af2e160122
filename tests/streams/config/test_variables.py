"""`${…}` in configurations: what it stands for, what it cannot stand for, and what is never shown."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from streams.config import toml
from streams.config.kinds import Address, Glob, Pattern
from streams.config.schema import json_schema
from streams.config.variables import Unresolved, expand
from streams.errors import Problem

SECRET = "hunter2-of-all"


class Inner(msgspec.Struct, frozen=True, kw_only=True, tag="inner"):
    text: str = "-"


class Other(msgspec.Struct, frozen=True, kw_only=True, tag="other"):
    """Another type of table."""


class File(msgspec.Struct, frozen=True, kw_only=True):
    """One key of each kind."""

    text: str = "-"
    needed: Pattern = "-"
    address: Address = "a:1"
    addresses: tuple[Address, ...] = ()
    path: Path = Path("-")
    globs: tuple[Glob, ...] = ()
    choice: Literal["one", "two"] = "one"
    count: Annotated[int, Meta(ge=1, le=10)] = 1
    flag: bool = False
    most_bytes: int = 0
    wait_seconds: float = 0.0
    table: Inner | Other = Inner()


@pytest.fixture(autouse=True)
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    for name in set(os.environ) & {"HOSTNAME", "NONE"}:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOST", "h1")
    monkeypatch.setenv("EMPTY", "")
    return tmp_path


def load(site: Path, text: str) -> tuple[File | None, dict[str, str]]:
    """The file, and its problems by key."""
    (site / "a.toml").write_text(text)
    problems: list[Problem] = []
    found = toml.convert(toml.parse(site / "a.toml"), File, path=site / "a.toml", base=site, problems=problems)
    return found, {problem.key: problem.message for problem in problems}


def value(site: Path, text: str) -> object:
    """What one string becomes."""
    return expand(text, site)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("${HOST}", "h1"),
        ("a-${HOST}.${HOST}-z", "a-h1.h1-z"),
        ("${EMPTY}", ""),
        ("${HOST:-other}", "h1"),
        ("${NONE:-other}", "other"),
        ("${EMPTY:-other}", "other"),
        ("${NONE:-}", ""),
        ("${NONE:-a:-b c}", "a:-b c"),
        ("${file:secret}", SECRET),
        ("u:${file:secret}@${HOST}", f"u:{SECRET}@h1"),
        ("$$", "$"),
        ("$${HOST}", "${HOST}"),
        ("$$${HOST}", "$h1"),
        ("^a$|b$", "^a$|b$"),
        ("cost: 5$", "cost: 5$"),
        ("$HOST", "$HOST"),
        ("$1 $(date)", "$1 $(date)"),
        ("{HOST}", "{HOST}"),
    ],
)
def test_a_string_is_expanded(site: Path, written: str, meant: str) -> None:
    assert value(site, written) == meant


def test_what_was_put_in_is_not_expanded_again(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST", "${file:secret} $$")
    assert value(site, "${HOST}") == "${file:secret} $$"


def test_the_name_of_the_host_is_known_without_the_environment(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert value(site, "${HOSTNAME}") == socket.gethostname()
    assert value(site, "${HOSTNAME:-other}") == socket.gethostname()
    monkeypatch.setenv("HOSTNAME", "set")
    assert value(site, "${HOSTNAME}") == "set"


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("${NONE}", "the environment has no variable NONE; set it, or write ${NONE:-default}"),
        ("${HOST", "'${HOST' has no closing brace"),
        ("${}", "'${}' is not a variable; write ${NAME}"),
        ("${1}", "'${1}' is not a variable"),
        ("${HOST-x}", "'${HOST-x}' is not a variable"),
        ("${NONE:-${HOST}}", "is not a variable"),
        ("${file:none}", "none cannot be read: No such file or directory; create it, or name another file"),
        ("${file:.}", "cannot be read: Is a directory"),
        ("${file:a\0b}", "cannot be read: a path holds no NUL"),
        ("${file:empty}", "empty is empty; write the value into it"),
        ("${file:binary}", "binary is not UTF-8"),
        ("${file:large}", "large is larger than 64 KiB"),
        ("${BINARY}", "the environment variable BINARY is not UTF-8"),
    ],
)
def test_what_cannot_be_expanded_names_the_remedy(
    site: Path, monkeypatch: pytest.MonkeyPatch, written: str, problem: str
) -> None:
    (site / "empty").write_text("\n\n")
    (site / "binary").write_bytes(b"\xff")
    (site / "large").write_bytes(b"x" * (64 * 1024 + 1))
    monkeypatch.setenv("BINARY", os.fsdecode(b"\xff"))
    found = value(site, written)
    assert isinstance(found, Unresolved)
    assert problem in found.problem


def test_every_problem_has_its_key_and_hides_none_of_the_others(site: Path) -> None:
    found, problems = load(
        site,
        'text = "${A}"\naddresses = ["a:1", "${B}", "x"]\ncount = "${C}"\nchoice = "three"\n[table]\ntype = "${D}"\n',
    )
    assert found is not None
    assert set(problems) == {"text", "addresses[1]", "addresses[2]", "count", "choice", "table.type"}
    assert "no variable B" in problems["addresses[1]"]


def test_strings_of_every_kind_are_expanded(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONE", "one")
    monkeypatch.setenv("INNER", "inner")
    found, problems = load(
        site,
        'address = "${HOST}:7"\naddresses = ["${HOST}:8"]\npath = "${HOST}/p"\nglobs = ["${HOST}/*"]\n'
        'choice = "${ONE}"\nneeded = "${HOST}"\n[table]\ntype = "${INNER}"\ntext = "${file:secret}"\n',
    )
    assert problems == {}
    assert found == File(
        address="h1:7",
        addresses=("h1:8",),
        path=site / "h1/p",
        globs=(str(site / "h1/*"),),
        needed="h1",
        table=Inner(text=SECRET),
    )
    assert type(found.address) is type(found.needed) is str
    assert type(found.table.text if isinstance(found.table, Inner) else None) is str


@pytest.mark.parametrize(
    ("key", "text", "meant"),
    [
        ("count", "7", 7),
        ("flag", "true", True),
        ("flag", "false", False),
        ("most_bytes", "2KiB", 2048),
        ("most_bytes", "4096", 4096),
        ("wait_seconds", "200ms", 0.2),
        ("wait_seconds", "5", 5.0),
        ("wait_seconds", "1.5", 1.5),
    ],
)
def test_a_variable_may_hold_a_number_or_a_boolean(
    site: Path, monkeypatch: pytest.MonkeyPatch, key: str, text: str, meant: object
) -> None:
    monkeypatch.setenv("X", text)
    found, problems = load(site, f'{key if not key.endswith("_seconds") else key[:-8]} = "${{X}}"\n')
    assert problems == {}
    assert getattr(found, key) == meant
    assert type(getattr(found, key)) is type(meant)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('count = "7"', "'7' is not a whole number"),
        ('count = "${X:-seven}"', "'seven' is not a whole number"),
        ('count = "${X:-11}"', "it must be at most 10"),
        ('count = "${X:-1.0}"', "1.0 is not a whole number"),
        ('flag = "true"', "'true' is not true or false"),
        ('flag = "${X:-yes}"', "'yes' is not true or false"),
        ('flag = "${X:-1}"', "'1' is not true or false"),
        ('most_bytes = "${X:-big}"', "'big' is not a size"),
    ],
)
def test_only_a_variable_may_and_only_with_a_valid_value(site: Path, line: str, problem: str) -> None:
    _, problems = load(site, line)
    assert problem in "".join(problems.values())


@pytest.mark.parametrize("line", ['path = "$HOST/x"', 'globs = ["/var/$HOST/*.log"]', 'path = "${HOST}/$HOST"'])
def test_a_variable_without_braces_is_refused_in_a_path(site: Path, line: str) -> None:
    _, problems = load(site, line)
    assert "".join(problems.values()) == ("$HOST is not replaced; write ${HOST}, or $$HOST for the characters $HOST")


def test_a_dollar_in_a_path_is_written_twice(site: Path) -> None:
    found, problems = load(site, 'path = "$$HOST/x"\nglobs = ["a$", "$1"]\n')
    assert found is not None
    assert (found.path, found.globs, problems) == (site / "$HOST/x", (f"{site}/a$", f"{site}/$1"), {})


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('address = "${file:secret}"', "address"),
        ('address = "${file:secret}:1"', "address"),
        ('addresses = ["${file:secret}"]', "addresses[0]"),
        ('path = "${file:secret}"', "path"),
        ('globs = ["${file:secret}"]', "globs[0]"),
        ('choice = "${file:secret}"', "choice"),
        ('count = "${file:secret}"', "count"),
        ('flag = "${file:secret}"', "flag"),
        ('most_bytes = "${file:secret}"', "most_bytes"),
        ('wait = "${file:secret}"', "wait"),
    ],
)
def test_what_logs_show_does_not_come_from_a_file(site: Path, line: str, key: str) -> None:
    _, problems = load(site, line)
    assert set(problems) == {key}
    assert "cannot come from a file, because logs show it; write it here, or use ${NAME}" in problems[key]
    assert "${file:secret}" in problems[key]
    assert SECRET not in str(problems)


def _refuse_everything(text: str) -> None:
    raise ValueError(f"{text!r} and {text} are not right")


def test_no_problem_shows_what_a_file_holds(site: Path) -> None:
    class Picky(msgspec.Struct):
        text: Annotated[str, Meta(extra={"check": _refuse_everything})] = "-"
        table: Inner | Other = Inner()
        inner: Inner = Inner()
        many: tuple[str, ...] = ()

    (site / "a.toml").write_text(
        'text = "${file:secret}"\ninner = "${file:secret}"\nmany = "${file:secret}"\nnone = "${file:secret}"\n'
        '[table]\ntype = "${file:secret}"\n'
    )
    problems: list[Problem] = []
    table = toml.parse(site / "a.toml")
    toml.convert(table, Picky, path=site / "a.toml", base=site, problems=problems)
    assert {problem.key for problem in problems} == {"text", "inner", "many", "none", "table.type"}
    assert SECRET not in str(problems)
    assert SECRET not in repr(table)
    assert {problem.key: problem.message for problem in problems}[
        "text"
    ] == "the content of '${file:secret}' is not valid here; correct the file"


def test_files_are_read_again_at_every_load(site: Path) -> None:
    before, _ = load(site, 'text = "${file:secret}"')
    (site / "secret").write_text("changed")
    after, _ = load(site, 'text = "${file:secret}"')
    assert before is not None
    assert after is not None
    assert (before.text, after.text) == (SECRET, "changed")


def test_the_schema_takes_variables_wherever_they_may_stand(site: Path) -> None:
    import jsonschema

    schema = jsonschema.Draft202012Validator(json_schema(File))
    schema.validate(dict.fromkeys(("text", "address", "choice", "count", "flag", "most_bytes", "wait"), "${X}"))
    for key in ("choice", "count", "flag", "most_bytes", "wait"):
        assert not schema.is_valid({key: "X"}), key
    assert not schema.is_valid({"addresses": "${X}"})


@given(st.text(alphabet="${}:-Aa1 file", max_size=20))
def test_any_string_is_expanded_or_refused(text: str) -> None:
    found = expand(text, Path("/nowhere"), {"A": "1", "a": ""})
    assert isinstance(found, str | Unresolved)
    if "$" not in text:
        assert found == text
    assert expand(text.replace("$", "$$"), Path("/nowhere"), {}) == text
