"""The report needs nothing but itself: no network, no other file; its pictures follow light and dark."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.compare import html
from bench.compare.command import compare, show_runs
from bench.compare.comparison import Comparison, conclude
from bench.figures import pictures
from tests.bench.compare.test_findings import CLASSICAL, HYBRID, _rounds

SPITEFUL = "<script>alert(1)</script>"


@pytest.fixture
def comparison() -> Comparison:
    links = {"http": {"mode": "classical", **CLASSICAL}, "pq-stream": {"mode": "hybrid", **HYBRID, "cipher": SPITEFUL}}
    rounds = _rounds(1.3, handshake_ms=[1.0, 1.2], connect_ms=[0.1])
    return conclude(("http", "pq-stream"), links, rounds, method="as a test does", seed=1)


def test_the_report_is_one_page_that_loads_nothing(comparison: Comparison, tmp_path: Path) -> None:
    written = html.write(comparison, tmp_path / "new")
    assert [path.suffix for path in written] == [".png", ".png", ".html", ".json"]
    page = (tmp_path / "new" / "report.html").read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!#)|@import|url\((?!#)""", page)
    assert comparison.verdict.words in page
    assert SPITEFUL not in page
    assert "&lt;script&gt;" in page
    drawings = re.findall(r"<svg.*?</svg>", page, re.S)
    assert len(drawings) == 2
    for drawing in drawings:
        texts = {element.text for element in ET.fromstring(drawing).iter("{http://www.w3.org/2000/svg}text")}
        assert {"pq-stream / http", "95 % interval", "classical", "hybrid"} <= texts
        assert "currentColor" in drawing
    for picture in written[:2]:
        assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_json_of_the_report_has_every_figure_and_its_origin(comparison: Comparison, tmp_path: Path) -> None:
    html.write(comparison, tmp_path)
    shown = json.loads((tmp_path / "report.json").read_text())
    assert shown["verdict"]["found"] == "more"
    assert shown["verdict"]["ratio"]["value"] == pytest.approx(1.3, rel=0.02)
    assert len(shown["rounds"]) == 12
    assert {"openssl", "cpu", "commit", "seed", "python"} <= set(shown["made_on"])
    assert shown["lines"][0] == {
        **shown["lines"][0],
        "metric": "batch duration, median",
        "primary": True,
        "rounds": 12,
    }


def test_without_matplotlib_the_remedy_is_named_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "available", lambda: False)
    answer = CliRunner().invoke(compare, [])
    assert answer.exit_code == 1
    assert "make setup" in answer.output
    assert "--no-report" in answer.output


def test_comparing_a_stream_with_itself_needs_a_second_name() -> None:
    answer = CliRunner().invoke(compare, ["http", "http"])
    assert answer.exit_code == 2
    assert "another name" in answer.output


def test_repeated_runs_are_counted_and_their_intervals_compared(
    comparison: Comparison, capsys: pytest.CaptureFixture[str]
) -> None:
    links = comparison.links
    other, calm = (conclude(("http", "pq-stream"), links, _rounds(times), method="", seed=1) for times in (2.0, 1.0))
    show_runs([comparison, comparison, other, calm], as_json=True)
    shown = json.loads(capsys.readouterr().out)
    counts = {"runs": 4, "no_difference": 1, "pairs": 6, "agreeing_pairs": 1}
    assert {key: shown[key] for key in counts} == counts
