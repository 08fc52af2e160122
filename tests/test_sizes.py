"""Files and functions stay short enough to be read in one go; what is longer says why."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("streams", "logfwd", "logreceiver", "bench", "tests")
FILE_LINES = 350
FUNCTION_LINES = 50

LONGER = {
    "bench/dashboard/panels.py": "one dashboard, panel by panel",
    "logfwd/pipeline.py": "the path of a batch in the order of its picture; its parts share what is under way",
    "streams/config/toml.py": "one reader: each kind of value needs all the others",
}
"""Files of the product, and functions as FILE::NAME, each with its reason."""

LONGER_TESTS = {
    "tests/integration/test_http.py": "what clients of the http source may rely on, over real sockets",
    "tests/logfwd/sources/file/test_joined.py": "joined lines, with every point at which the forwarder may be killed",
    "tests/logfwd/sources/file/test_rotation.py": "every way to rotate",
    "tests/logfwd/sources/file/test_used_inodes.py": "every way in which an inode is used again",
    "tests/logfwd/sources/file/test_which.py": "the table of which.py, row by row",
    "tests/logfwd/sources/test_source_contract.py": "one suite that every source passes",
    "tests/logfwd/spool/test_store.py": "one spool, from open to close",
    "tests/logfwd/test_definition.py": "each key of a stream file and its mistakes",
    "tests/logreceiver/ledger/test_ledger.py": "entries are written, counted and answered with by the same helpers",
    "tests/logreceiver/links/test_session.py": "one link, message by message, through one fake forwarder",
    "tests/logreceiver/sinks/test_log_damage.py": "each kind of damage to one log",
    "tests/streams/records/test_batch.py": "build, check, stamp, place and halve: one format and its oracles",
    "tests/streams/security/tls13/test_kemtls.py": "one handshake, message by message, and each way to break it",
}
"""Tests of one subject, which share their helpers."""


def lengths() -> dict[str, int]:
    """Everything beyond its limit, with its lines."""
    found: dict[str, int] = {}
    for path in (path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))):
        name, text = str(path.relative_to(ROOT)), path.read_text()
        if (lines := text.count("\n")) > FILE_LINES:
            found[name] = lines
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES:
                    found[f"{name}::{node.name}"] = lines
    return found


def test_what_is_long_is_named_with_a_reason() -> None:
    limits = f"at most {FILE_LINES} lines a file and {FUNCTION_LINES} a function; split it, or give the reason here"
    assert {name: lines for name, lines in lengths().items() if name not in LONGER | LONGER_TESTS} == {}, limits


def test_every_exception_is_still_needed() -> None:
    assert sorted((LONGER | LONGER_TESTS).keys() - lengths()) == []
