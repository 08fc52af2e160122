"""Programs of others from Debian packages, unpacked into a directory: no root, nothing is installed."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from bench.site import StartFailed


def unpack(packages: Sequence[str], directory: Path) -> Path:
    """Fetch packages and unpack them; returns their root. StartFailed, with the remedy, where that cannot be done."""
    root = directory / "root"
    try:
        _run(["apt-get", "download", *packages], directory)
        for package in directory.glob("*.deb"):
            _run(["dpkg", "-x", str(package), str(root)], directory)
            package.unlink()
    except (OSError, subprocess.SubprocessError) as error:
        told = (getattr(error, "stderr", b"") or b"").decode(errors="replace").strip()
        raise StartFailed(
            f"Debian's {', '.join(packages)} cannot be had here (Debian or Ubuntu: apt-get update, and try again): "
            f"{error}\n{told}".rstrip()
        ) from error
    return root


def _run(argv: Sequence[str], directory: Path) -> None:
    subprocess.run(argv, cwd=directory, check=True, capture_output=True, timeout=300)
