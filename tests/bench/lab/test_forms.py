"""The generated records as other programs write them are what our inputs take for such programs' lines."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from bench.lab import forms
from bench.lab.clients import bodies
from bench.lab.load import JSON_LINES, Base, Form
from logfwd.sources.formats import containers
from logfwd.sources.formats.containers import Parse
from logfwd.sources.syslog.message import to_json

RECORDS = 200


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return Base.generate(tmp_path_factory.mktemp("base") / "data.jsonl", RECORDS, seed=1, record_bytes=577)


@pytest.mark.parametrize(
    ("form", "parse"),
    [
        (forms.CRI, containers.cri),
        (forms.CRI_TEXT, containers.cri),
        (forms.DOCKER, containers.docker),
        (forms.DOCKER_TEXT, containers.docker),
    ],
)
def test_lines_of_containers_hold_the_records(base: Base, tmp_path: Path, form: Form, parse: Parse) -> None:
    copy = base.written(tmp_path / "lines", form).copy(tmp_path / "copy", 7)
    pieces = [parse(line) for line in copy.read_bytes().splitlines()]
    records = base.path.read_bytes().splitlines()
    assert [piece.content for piece in pieces[1:] if piece] == [form.content(record) for record in records[1:]]
    assert pieces[0] is not None
    assert pieces[0].content.startswith(form.content(b'{"copy":"')[:10])
    assert all(piece is not None and piece.is_end for piece in pieces)


def test_a_file_of_another_form_knows_how_much_its_lines_say(base: Base, tmp_path: Path) -> None:
    assert base.written(tmp_path / "cri", forms.CRI).content_bytes == base.content_bytes == base.size
    text, cri = (base.written(tmp_path / name, form) for name, form in (("t", forms.TEXT), ("c", forms.CRI_TEXT)))
    assert cri.content_bytes == text.content_bytes == text.size < cri.size
    assert base.first(10).written(tmp_path / "first", JSON_LINES).size == base.starts[10]


def test_text_is_not_json_and_about_as_long(base: Base) -> None:
    for record in base.path.read_bytes().splitlines():
        text = forms.plain_text(record)
        assert not text.lstrip().startswith(b"{")
        assert 0.9 < len(text) / len(record) < 1.1


def test_syslog_messages_are_taken_as_such(base: Base, tmp_path: Path) -> None:
    made = base.written(tmp_path / "messages", forms.SYSLOG).path.read_bytes().splitlines()
    for message, record in zip(made, base.path.read_bytes().splitlines(), strict=True):
        parsed = json.loads(to_json(message, 0.0) or b"{}")
        assert (parsed["app"], parsed["message"].encode()) == ("shop", forms.plain_text(record))


@pytest.mark.parametrize("least_bytes", [0, 10_000, 10**9])
def test_bodies_are_whole_lines_of_at_least_a_size(base: Base, least_bytes: int) -> None:
    found = [bytes(body) for body in bodies(base.first(100), least_bytes)]
    assert b"".join(found) == base.path.read_bytes()[: base.starts[100]]
    assert all(body.endswith(b"\n") for body in found)
    assert all(len(body) >= least_bytes for body in found[:-1])
    assert len(found) == 100 or all(len(a) < least_bytes + 1000 for a, _ in pairwise(found))
