"""Third-party programs from Debian packages, unpacked into a directory: no root, nothing is installed."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from bench.lab.processes import StartFailed


def unpack(packages: Sequence[str], directory: Path) -> Path:
    """Fetch packages and unpack them; returns their root. StartFailed, with the reason, where that cannot be done."""
    root = directory / "root"
    try:
        _download(packages, directory)
        for package in directory.glob("*.deb"):
            _run(["dpkg", "-x", str(package), str(root)], directory)
            package.unlink()
    except (OSError, subprocess.SubprocessError) as error:
        output = (getattr(error, "stderr", b"") or b"").decode(errors="replace").strip()
        raise StartFailed(
            f"cannot fetch the Debian packages of {packages[0]}; this needs Debian or Ubuntu and access to their "
            f"archive: {error} {output}".rstrip()
        ) from error
    return root


def _download(packages: Sequence[str], directory: Path) -> None:
    """Download with the system's package lists; if they are missing or outdated, with fresh lists of our own."""
    try:
        _run(["apt-get", "download", *packages], directory)
    except subprocess.CalledProcessError:
        for part in ("lists/partial", "cache/archives/partial"):
            (directory / part).mkdir(parents=True)
        ours = ["-o", f"Dir::State::Lists={directory / 'lists'}", "-o", f"Dir::Cache={directory / 'cache'}"]
        _run(["apt-get", *ours, "update"], directory)
        _run(["apt-get", *ours, "download", *packages], directory)


def _run(argv: Sequence[str], directory: Path) -> None:
    subprocess.run(argv, cwd=directory, check=True, capture_output=True, timeout=300)
