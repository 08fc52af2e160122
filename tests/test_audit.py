"""Dependencies are audited, and what could not be is said."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from tests import audit

SOUND = {"name": "a", "version": "1", "vulns": []}
WRONG = {"name": "b", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}
SKIPPED = {"name": "c", "skip_reason": "not found"}


def test_a_vulnerability_is_wrong_and_named() -> None:
    lines, is_known, is_wrong = audit.judged({"dependencies": [SOUND, WRONG]})
    assert lines == ["2 of 2 dependencies audited, 1 vulnerabilities", "b 2: CVE-1, fixed in 3"]
    assert (is_known, is_wrong) == (True, True)


def test_what_could_not_be_audited_is_said_and_not_wrong() -> None:
    assert audit.judged({"dependencies": [SKIPPED]})[1:] == (False, False)
    assert "knows nothing of 1: c" in audit.judged({"dependencies": [SOUND, SKIPPED]})[0][0]
    assert audit.judged(None) == (["dependencies not audited: the index does not answer"], False, False)


@pytest.mark.parametrize(("said", "known"), [("", False), (json.dumps({"dependencies": [SOUND]}), True)])
def test_what_pip_audit_says_is_read(monkeypatch: pytest.MonkeyPatch, said: str, known: bool) -> None:
    def run(*_: Any, **__: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 1, said, "")

    monkeypatch.setattr(subprocess, "run", run)
    assert (audit.ask("a==1\n") is not None) is known
