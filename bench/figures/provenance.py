"""The machine and versions that figures were measured with: enough to explain why another run differs."""

from __future__ import annotations

import platform
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

from cryptography.hazmat.backends.openssl import backend

from bench.figures import report

_HERE = Path(__file__).parent


def provenance(seed: int | None) -> dict[str, Any]:
    """`report.machine()`, the OpenSSL that links use, the CPU's name, the commit, the seed of the records."""
    return {
        **report.machine(),
        "openssl": backend.openssl_version_text(),
        "cpu": _cpu_name(),
        "commit": _commit(),
        "seed": seed,
    }


def _cpu_name() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """The commit of the checkout that this runs from, with `+` if it has changes; None for an installed package."""
    with suppress(OSError, subprocess.SubprocessError):
        return _git("rev-parse", "--short=12", "HEAD") + ("+" if _git("status", "--porcelain", "-uno") else "")
    return None


def _git(*arguments: str) -> str:
    answer = subprocess.run(
        ["git", *arguments],  # noqa: S607 — the git on the PATH
        cwd=_HERE,
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    )
    return answer.stdout.strip()
