"""Known vulnerabilities of what the programs depend on, by pip-audit; part of `make check`, at most once a day.

`uv export … | python -m tests.audit STAMP`. Where nobody can be asked, that is said and is no failure: a check has to
work without a network. STRICT=1 changes nothing about that: what is not known is not wrong.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ASK_SECONDS = 60.0
FRESH_SECONDS = 86_400.0


def main() -> int:
    stamp, wanted = Path(sys.argv[1]), sys.stdin.read()
    if stamp.exists() and stamp.read_text() == wanted and time.time() - stamp.stat().st_mtime < FRESH_SECONDS:
        return 0
    answer = ask(wanted)
    lines, is_known, is_wrong = judged(answer)
    print("\n".join(lines), file=sys.stderr)
    if is_known and not is_wrong:
        stamp.write_text(wanted)
    return int(is_wrong)


def ask(requirements: str) -> dict[str, Any] | None:
    """What pip-audit says; None if it cannot say anything."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(requirements)
        file.flush()
        command = [sys.executable, "-m", "pip_audit", "-r", file.name, "--no-deps", "--disable-pip", "-f", "json"]
        try:
            done = subprocess.run(
                [*command, "--progress-spinner", "off"],
                capture_output=True,
                text=True,
                timeout=ASK_SECONDS,
                check=False,
            )
            found: dict[str, Any] = json.loads(done.stdout)
        except (subprocess.TimeoutExpired, ValueError):
            return None
    return found


def judged(answer: dict[str, Any] | None) -> tuple[list[str], bool, bool]:
    """Lines to print; whether anything is known, and whether something is wrong."""
    if answer is None:
        return ["dependencies not audited: the index does not answer"], False, False
    packages = answer["dependencies"]
    skipped = [each["name"] for each in packages if "skip_reason" in each]
    wrong = [
        f"{each['name']} {each['version']}: {fault['id']}, fixed in {', '.join(fault['fix_versions']) or 'nothing yet'}"
        for each in packages
        for fault in each.get("vulns", ())
    ]
    counts = f"{len(packages) - len(skipped)} of {len(packages)} dependencies audited, {len(wrong)} vulnerabilities"
    if skipped:
        counts += f"; the index knows nothing of {len(skipped)}: {', '.join(skipped[:3])}{' …' * (len(skipped) > 3)}"
    return [counts, *wrong], len(skipped) < len(packages), bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
