"""The examples of docs/inputs.md do what the page says."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

from logfwd.definition import Stream
from logfwd.sources.http.settings import HttpSource
from tests.integration.test_http import serving
from tests.support.installation import Installation

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "inputs.md").read_text()


def commands(block: str) -> list[str]:
    """The commands of a block of shell: joined lines, without comments and what they print."""
    lines = re.sub(r" \\\n\s*", " ", block).splitlines()
    return [line for line in lines if line and not line.startswith(("#", "{"))]


async def test_curl_examples_are_accepted(tmp_path: Path) -> None:
    block = PAGE.split("```sh\n")[1].split("```")[0]
    (tmp_path / "app.ndjson").write_text('{"n":1}\n{"n":2}\n')
    (tmp_path / "syslog").write_text("one line\nanother line\n")
    installation, socket = Installation(tmp_path), tmp_path / "http.sock"
    web, local = HttpSource(address="127.0.0.1:0"), HttpSource(address=f"unix:{socket}")
    answers = []
    for source in (web, local):
        async with serving(installation, Stream(name="web", source=source)) as served:
            for command in commands(block):
                if ("--unix-socket" in command) != (source is local):
                    continue
                here = command.replace("127.0.0.1:8088", served.address).replace("/var/log/syslog", "syslog")
                here = here.replace("/run/logfwd/http.sock", str(socket)).replace("curl ", "curl -sS ")
                process = await asyncio.create_subprocess_exec(
                    "bash", "-c", here, cwd=tmp_path, stdout=asyncio.subprocess.PIPE
                )
                out, _ = await process.communicate()
                answers.append(json.loads(out)["accepted"])
    assert answers == [2, 2, 1, 2, 2, 2, 1]
    assert '{"accepted":2,"invalid":0}' in block


def test_every_answer_is_explained() -> None:
    sources = "".join(path.read_text() for path in (DOCS.parent / "logfwd" / "sources" / "http").glob("*.py"))
    raised = {
        *re.findall(r'(?:Refused|try_again)\(\s*(\d{3}), "(\w+)"', sources),
        ("413", "too_large"),
        ("415", "unsupported"),
        ("400", "malformed"),
    }
    rows = [line.split("|")[1:3] for line in PAGE.splitlines() if re.match(r"\| \d{3}", line)]
    explained = {
        (status, code)
        for statuses, codes in rows
        for status in re.findall(r"\d{3}", statuses)
        for code in re.findall(r"`(\w+)`", codes)
    }
    assert raised <= explained
