"""Programs in Go, as peers that share no code with ours."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

BUILD_SECONDS = 600.0


def go_program(source: str, directory: Path, *, version: str = "1.26") -> list[str] | None:
    """The command of a program of this Go version; None without a Go.

    It is built with the user's build cache, so that Go's own library is compiled once and not for each program.
    """
    go = shutil.which("go")
    if go is None:
        return None
    (directory / "main.go").write_text(source)
    (directory / "go.mod").write_text(f"module peer\n\ngo {version}\n")
    environment = {**os.environ, "GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local", "GOWORK": "off"}
    argv = [go, "build", "-o", "peer", "."]
    subprocess.run(argv, cwd=directory, check=True, env=environment, timeout=BUILD_SECONDS)
    return [str(directory / "peer")]
