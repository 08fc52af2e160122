"""Every command has a man page with what its --help says."""

from __future__ import annotations

from pathlib import Path

from bench.dashboard import manpages
from tests.test_help import ALL


def test_every_command_has_a_page_with_its_options_and_examples(tmp_path: Path) -> None:
    pages = {page.stem: page.read_text() for page in manpages.write(tmp_path / "man1", "1.2.3")}
    expected = {path.replace(" ", "-"): command for path, command in ALL if not command.hidden}
    assert pages.keys() == expected.keys()
    for name, command in expected.items():
        page = pages[name]
        assert '"1.2.3"' in page
        assert "\b" not in page
        for parameter in command.params:
            for option in parameter.opts:
                if option.startswith("--"):
                    assert option.replace("-", "\\-") in page, name
        for line in (command.epilog or "").replace("\b", "").strip().splitlines():
            assert line.strip() in page, name
