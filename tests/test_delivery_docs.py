"""Every test that docs/delivery.md names exists, and each of its sixteen rules names one."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCUMENT = (ROOT / "docs" / "delivery.md").read_text()
NAME = re.compile(r"`(test_\w+)`")


def test_every_named_test_exists() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    there = set(re.findall(r"^(?:async )?def (test_\w+)\(", sources, re.MULTILINE))
    named = set(NAME.findall(DOCUMENT))
    assert len(named) > 30
    assert named - there == set()


def test_every_named_file_exists() -> None:
    named = re.findall(r"`(tests/[\w/.]+)`", DOCUMENT)
    assert named
    assert [path for path in named if not (ROOT / path).is_file()] == []


def test_every_event_and_every_rule_has_a_test() -> None:
    rows = [line for line in DOCUMENT.splitlines() if line.startswith("| ")]
    rules = {int(found[1]): line for line in rows if (found := re.match(r"\| (\d+) \|", line))}
    assert sorted(rules) == list(range(1, 17))
    events = rows[rows.index("| event | promise | shown by |") + 1 : rows.index("| rule | says | test |")]
    assert [line for line in (*events, *rules.values()) if not NAME.search(line)] == []
