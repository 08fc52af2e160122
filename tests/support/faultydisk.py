"""A disk whose answers a test decides: a program's calls that change files below a directory fail, or never return."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.lab.site import Program

SOURCE = Path(__file__).with_suffix(".c")


@dataclass
class FaultyDisk:
    """Faults of everything below `directory`, for programs that were started with it."""

    library: Path
    directory: Path
    control: Path

    @classmethod
    def below(cls, directory: Path, scratch: Path) -> FaultyDisk:
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            pytest.skip("needs a C compiler")
        scratch.mkdir()
        disk = cls(scratch / "faultydisk.so", directory, scratch / "control")
        disk.control.mkdir()
        options = ["-shared", "-fPIC", "-O1", "-w"]
        subprocess.run([compiler, *options, "-o", disk.library, SOURCE, "-ldl"], check=True, timeout=120)
        return disk

    def under(self, program: Program) -> None:
        """Start a program on this disk."""
        program.environment = {
            **program.environment,
            "LD_PRELOAD": str(self.library),
            "FAULTY_DIRECTORY": f"{self.directory}/",
            "FAULTY_CONTROL": str(self.control),
        }

    def begin(self, fault: int | str) -> None:
        """An error number that calls fail with, or "hang"."""
        (self.control / str(fault)).touch()

    def end(self, fault: int | str) -> None:
        (self.control / str(fault)).unlink()
