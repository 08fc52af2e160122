"""What the documents show exists: links lead somewhere, and commands and their options are those of the programs."""

from __future__ import annotations

import re
from pathlib import Path

import click

import bench.cli
import logfwd.cli
import logreceiver.cli

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
PROGRAMS = {"logfwd": logfwd.cli.main, "logreceiver": logreceiver.cli.main, "logbench": bench.cli.main}
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
CALL = re.compile(r"^(?:\.venv/bin/)?(logfwd|logreceiver|logbench)((?: [\w./:=*-]+)*)")


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    titles = (title.lower() for title in HEADING.findall(document.read_text()))
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


def calls(text: str) -> set[tuple[str, str]]:
    """Programs with the words that follow them, in code spans and in lines of code blocks."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    indented = re.findall(r"^ {4}(\S.*)$", text, re.MULTILINE)
    spans = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)
    lines = [line.removeprefix("$ ").partition("#")[0] for line in (*indented, *"\n".join(blocks).splitlines())]
    found = (CALL.match(each.strip()) for each in (*spans, *lines))
    return {(call[1], call[2]) for call in found if call}


def wrong(program: str, words: str) -> str:
    """Why a call cannot be made: a command or an option that there is not; or nothing."""
    command: click.Command = PROGRAMS[program]
    for word in words.split():
        context = click.Context(command)
        if word.isupper():  # stands for any of them
            return ""
        if word.startswith("-"):
            options = {each for parameter in command.get_params(context) for each in parameter.opts}
            if word.partition("=")[0] not in options:
                return f"{program}{words}: no option {word}"
        elif isinstance(command, click.Group):
            found = command.get_command(context, word)
            if found is None:
                return f"{program}{words}: no command {word}"
            command = found
    return ""


def test_every_link_between_documents_leads_somewhere() -> None:
    dead = []
    for document in DOCUMENTS:
        for link in LINK.findall(document.read_text()):
            path, _, anchor = link.partition("#")
            target = (document.parent / path) if path else document
            if "://" in link:
                continue
            if not target.exists() or (anchor and anchor not in anchors(target)):
                dead.append(f"{document.name}: {link}")
    assert dead == []


def test_every_command_and_option_that_documents_show_exists() -> None:
    shown = {(document.name, *call) for document in DOCUMENTS for call in calls(document.read_text())}
    assert len(shown) > 60
    assert [f"{name}: {found}" for name, *call in sorted(shown) if (found := wrong(*call))] == []
