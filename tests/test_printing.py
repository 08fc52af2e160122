"""What peers, files and records put into a line for people does nothing to their terminal."""

from __future__ import annotations

import ast
import os
import pty
import subprocess
import sys
from pathlib import Path

import click
from click.testing import CliRunner

from logreceiver.sinks.log.sink import LogSink
from logreceiver.sinks.settings import LogSink as Settings
from streams import program
from tests.support.batches import batch

ROOT = Path(__file__).parent.parent
EVIL = "\x1b]0;title\x07\x9b2J\r\n\u202e"


def test_lines_for_people_are_printed_by_one_function() -> None:
    """Beside it there are JSON, whose encoder spells out by itself, and records."""
    others = []
    for path in sorted(
        path for package in ("logfwd", "logreceiver", "streams") for path in (ROOT / package).rglob("*.py")
    ):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("click.echo", "print"):
                text = ast.unparse(node)
                if not text.startswith("click.echo(json.dumps(") and text != "click.echo(value)":
                    others.append(f"{path.relative_to(ROOT)}: {text}")
    assert others == ["streams/program.py: click.echo(harmless(str(line)), err=err)"]


def test_the_words_of_a_failed_command_do_nothing_to_a_terminal() -> None:
    group = program.Commands(elsewhere={})

    @group.command()
    def fail() -> None:
        raise click.ClickException(f"no topic {EVIL}")

    result = CliRunner().invoke(group, ["fail"])
    assert result.exit_code == 1
    assert set(result.output) & set("\x1b\x07\x9b\r\u202e") == set()
    assert "\\x1b]0;title" in result.output


async def test_cat_spells_out_for_a_terminal_alone(tmp_path: Path) -> None:
    record = '{"message":"\x9b2J\u202e"}'.encode()
    sink = LogSink(Settings(directory=tmp_path / "log"))
    await sink.start()
    await sink.topic("t")
    await sink.produce("t", 0, batch(await sink.new_producer_id(), 0, records=[record]))
    await sink.close()
    command = [str(Path(sys.executable).with_name("logreceiver")), "cat", "t", "-d", str(tmp_path / "log")]
    piped = subprocess.run(command, capture_output=True, check=True, timeout=60)
    assert piped.stdout == record + b"\n"
    near, far = pty.openpty()
    try:
        subprocess.run(command, stdout=far, check=True, timeout=60)
        shown = os.read(near, 4096)
    finally:
        os.close(near)
        os.close(far)
    assert shown == b'{"message":"\\u009b2J\\u202e"}\r\n'
