"""docs/events.md lists every log event of the programs with its levels and fields: no more, no fewer.

Events are read from the source: calls such as `log.warning("event", field=…)` on anything named `log` or `_log`.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
TITLES = {"logfwd": "Forwarder", "logreceiver": "Receiver", "streams": "Both programs"}
LEVELS = ("debug", "info", "warning", "error", "exception", "critical")
HANDSHAKE_FIELDS = ("told", "log_fields", "seen")
"""Splats that stand for the fields of a handshake: `**facts.log_fields()`, and what is known of a failed one."""


class Event(NamedTuple):
    levels: frozenset[str]
    fields: frozenset[str]


def calls_of_loggers(tree: ast.AST, methods: tuple[str, ...]) -> Iterator[tuple[ast.Call, ast.AST]]:
    """Calls of these methods on a logger, each with the function (or module) that it stands in."""
    for scope in ast.walk(tree):
        if isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef | ast.Module):
            for call in _own_nodes(scope):
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in methods:
                    yield call, scope


def _own_nodes(scope: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(scope):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child
            yield from _own_nodes(child)


def is_logger(node: ast.expr) -> bool:
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return name in {"log", "_log"}


def fields_of(call: ast.Call, scope: ast.AST) -> Iterator[str]:
    for keyword in call.keywords:
        if keyword.arg is not None:
            yield keyword.arg
        else:
            yield from _splat(keyword.value, scope)


def _splat(value: ast.expr, scope: ast.AST) -> Iterator[str]:
    name = value.func if isinstance(value, ast.Call) else value
    if isinstance(name, ast.Attribute) and name.attr in HANDSHAKE_FIELDS:
        yield from handshake_fields()
        return
    assert not isinstance(value, ast.Call), f"cannot read the fields of **{ast.unparse(value)}"
    found = [value] if isinstance(value, ast.Dict) else list(_assigned(value, scope))
    assert found, f"cannot read the fields of **{ast.unparse(value)}: write them out, or build the dict nearby"
    for literal in found:
        if not isinstance(literal, ast.Dict):
            yield from _splat(literal, scope)
            continue
        for key, element in zip(literal.keys, literal.values, strict=True):
            if key is None:
                yield from _splat(element, scope)
            else:
                yield str(ast.literal_eval(key))


def _assigned(name: ast.expr, scope: ast.AST) -> Iterator[ast.expr]:
    """What the function assigns to a local name."""
    for node in ast.walk(scope):
        if isinstance(node, ast.Assign) and ast.unparse(name) in {ast.unparse(target) for target in node.targets}:
            yield node.value


@cache
def handshake_fields() -> frozenset[str]:
    """Keys of the dict that `Facts` gives for a log line."""
    for path in sorted((ROOT / "streams" / "security").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name in HANDSHAKE_FIELDS:
                dicts = [each for each in ast.walk(node) if isinstance(each, ast.Dict)]
                return frozenset(str(key.value) for each in dicts for key in each.keys if isinstance(key, ast.Constant))
    raise AssertionError("Facts has no method that gives the fields of a log line")


@cache
def trees(package: str) -> list[tuple[Path, ast.Module]]:
    return [(path, ast.parse(path.read_text())) for path in sorted((ROOT / package).rglob("*.py"))]


def logged(package: str) -> dict[str, Event]:
    levels: dict[str, set[str]] = defaultdict(set)
    fields: dict[str, set[str]] = defaultdict(set)
    for path, tree in trees(package):
        for call, scope in calls_of_loggers(tree, LEVELS):
            assert isinstance(call.func, ast.Attribute)
            if not is_logger(call.func.value):
                continue
            assert isinstance(call.args[0], ast.Constant), f"{path}:{call.lineno}: the event is not written out"
            event = str(call.args[0].value)
            levels[event].add("error" if call.func.attr == "exception" else call.func.attr)
            fields[event] |= set(fields_of(call, scope))
    return {event: Event(frozenset(levels[event]), frozenset(fields[event])) for event in levels}


def bound(package: str) -> set[str]:
    """Fields that loggers carry on every line."""
    found = set()
    for _, tree in trees(package):
        for call, _ in calls_of_loggers(tree, ("bind",)):
            if "log" in ast.unparse(call.func):
                found |= {keyword.arg for keyword in call.keywords if keyword.arg is not None}
    return found


def section(package: str) -> str:
    text = (ROOT / "docs" / "events.md").read_text()
    return text.split(f"\n## {TITLES[package]}", 1)[1].split("\n## ", 1)[0]


def documented(package: str) -> dict[str, Event]:
    events = {}
    for line in section(package).splitlines():
        if line.startswith("| `"):
            event, levels, fields, meaning = (cell.strip() for cell in line.strip("|").split("|"))
            assert meaning, f"{event} has no explanation"
            assert event not in events, f"{event} stands there twice"
            events[event.strip("`")] = Event(names(levels), names(fields))
    return events


def names(cell: str) -> frozenset[str]:
    return frozenset(part.strip(" `") for part in cell.split(",") if part.strip(" `–"))


@pytest.mark.parametrize("package", TITLES)
def test_every_event_is_documented_with_its_level_and_fields(package: str) -> None:
    code, document = logged(package), documented(package)
    assert sorted(code) == sorted(document)
    different = {event: (document[event], code[event]) for event in code if document[event] != code[event]}
    assert not different, "documented and real levels and fields differ"


@pytest.mark.parametrize("package", TITLES)
def test_fields_that_every_line_of_a_stream_or_link_carries_are_documented(package: str) -> None:
    lines = [line for line in section(package).splitlines() if line.startswith("Bound: ")]
    assert names(lines[0].removeprefix("Bound: ").rstrip(".")) == bound(package) if lines else not bound(package)


def test_the_reader_finds_splats_levels_and_nested_functions() -> None:
    source = (
        "def f():\n"
        "    seen = {'a': 1, 'b': 2}\n"
        "    def g():\n"
        "        self.log.warning('x', c=3)\n"
        "    log.info('y', **seen, d=4)\n"
        "    table.info('not a logger')\n"
    )
    found = [
        (call.args[0].value, set(fields_of(call, scope)))  # type: ignore[attr-defined]
        for call, scope in calls_of_loggers(ast.parse(source), LEVELS)
        if isinstance(call.func, ast.Attribute) and is_logger(call.func.value)
    ]
    assert sorted(found) == [("x", {"c"}), ("y", {"a", "b", "d"})]
