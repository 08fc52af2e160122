"""Shells complete commands and options of both programs, by the script that they print."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from bench.lab.site import command

SCRIPT = """
eval "$({program} completion bash)"
COMP_WORDS=({words}) COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
_{program}_completion {program}
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def completed(program: str, words: str) -> set[str]:
    """What bash offers for the last of these words."""
    path = f"{Path(command(program)).parent}:{os.environ['PATH']}"
    argv = ["bash", "--norc", "-c", SCRIPT.format(program=program, words=words)]
    done = subprocess.run(argv, env={"PATH": path}, capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""
    return set(done.stdout.split())


def test_bash_completes_commands_and_options_and_values() -> None:
    assert completed("logfwd", "logfwd sta") == {"status"}
    assert completed("logfwd", "logfwd tap --co") == {"--config", "--count"}
    assert completed("logfwd", "logfwd run --log-format j") == {"json"}
    assert completed("logreceiver", "logreceiver le") == {"ledger"}


@pytest.mark.parametrize("program", ["logfwd", "logreceiver"])
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_there_is_a_script_for_each_shell(program: str, shell: str) -> None:
    done = subprocess.run(
        [command(program), "completion", shell], capture_output=True, text=True, timeout=60, check=True
    )
    assert f"_{program.upper()}_COMPLETE={shell}_complete" in done.stdout
