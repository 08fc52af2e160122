"""`logfwd streams`: a stream is added to a running forwarder, changed and removed; what is refused leaves nothing."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.lab.processes import wait_until
from bench.lab.site import FORWARDER_IDENTITY, Site
from streams.telemetry.client import NotAnswered
from tests.integration.test_status import PATIENCE_SECONDS, SOURCE, append, ask, run

RECORDS = 300


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A receiver that runs and takes http, app and pq; a forwarder with one stream, not started."""
    with Site(tmp_path / "site") as made:
        made.make_pki()
        made.write_receiver('type = "log"\ndirectory = "log"', listeners={"localhost:0": '["hybrid"]'})
        config = made.directory / "logreceiver.toml"
        config.write_text(config.read_text().replace('streams = ["*"]', 'streams = ["http", "app", "pq"]'))
        made.write_forwarder(made.start_receiver())
        made.write_stream("http", SOURCE.format("http"))
        yield made


def add(site: Site, name: str, *options: str) -> tuple[int, str]:
    file = str(site.directory / f"{name}.log")
    return ask(site, "logfwd", "streams", "add", name, *(options or ("--file", file, "--set", "source.scan=100ms")))


def runs(site: Site, *names: str) -> bool:
    """Whether these streams, and no others, run within a while; a busy machine may take long for the first answer."""

    def found() -> bool:
        with contextlib.suppress(NotAnswered):
            return set(site.streams()) == set(names)
        return False

    return wait_until(found, PATIENCE_SECONDS, every_seconds=0.1)


def stored(site: Site, topic: str) -> int:
    code, text = ask(site, "logreceiver", "cat", topic)
    assert code == 0, text
    return text.count("\n")


def test_a_stream_is_added_changed_and_removed_while_another_keeps_its_link(site: Site) -> None:
    append(site, "http", RECORDS)
    append(site, "app", RECORDS)
    site.start_forwarder()
    assert site.wait_until_acknowledged(RECORDS, ["http"], PATIENCE_SECONDS)
    since = site.streams()["http"]["link"]["since"]

    code, text = add(site, "app")
    assert code == 0, text
    assert "streams started: app" in text
    assert "app is linked to" in text
    assert site.wait_until_acknowledged(RECORDS, ["app"], PATIENCE_SECONDS)
    file = site.streams_dir / "app.toml"
    assert stat.S_IMODE(file.stat().st_mode) == stat.S_IMODE((site.directory / "logfwd.toml").stat().st_mode)
    assert add(site, "app")[0] == 1, "it exists"

    file.write_text("# mine\n" + file.read_text().replace("100ms", "50ms") + "\n[add]\nrun = 2\n")
    code, text = ask(site, "logfwd", "reload")
    assert (code, "streams changed: app" in text) == (0, True), text
    append(site, "app", RECORDS)
    assert site.wait_until_acknowledged(2 * RECORDS, ["app"], PATIENCE_SECONDS)

    code, text = ask(site, "logfwd", "streams", "remove", "app")
    assert (code, "streams removed: app" in text) == (0, True), text
    assert runs(site, "http")
    assert file.read_text().startswith("removed = true\n# mine\n")
    append(site, "http", RECORDS)
    append(site, "app", RECORDS)
    assert site.wait_until_acknowledged(2 * RECORDS, ["http"], PATIENCE_SECONDS)
    assert site.streams()["http"]["link"]["since"] == pytest.approx(since, abs=0.1), "its link was not touched"

    code, text = add(site, "app")
    assert (code, "streams started: app" in text) == (0, True), text
    assert site.wait_until_acknowledged(3 * RECORDS, ["app"], PATIENCE_SECONDS), "it goes on where it was"
    assert (stored(site, "http"), stored(site, "app")) == (2 * RECORDS, 3 * RECORDS)


def test_a_twin_comes_with_its_mode_and_goes_with_its_original_or_before(site: Site) -> None:
    site.start_forwarder()
    code, text = add(site, "pq", "--mirror-of", "http", "--mode", "hybrid")
    assert (code, "streams changed: http" in text) == (0, True), text
    append(site, "http", RECORDS)
    assert site.wait_until_acknowledged(RECORDS, ["http", "pq"], PATIENCE_SECONDS)
    rows = json.loads(run(site, "logfwd", "streams", "list", "--json").stdout)
    assert [(row["stream"], row["twin_of"], row["reads"]) for row in rows] == [
        ("http", None, str(site.directory / "http.log")),
        ("pq", "http", "twin of http"),
    ]
    assert add(site, "app")[0] == 0
    code, text = ask(site, "logfwd", "streams", "remove", "http")
    assert (code, "pq is a twin of http" in text) == (1, True), text
    assert ask(site, "logfwd", "streams", "remove", "http", "pq")[0] == 0
    assert runs(site, "app")
    listed = ask(site, "logfwd", "streams", "list")[1].splitlines()
    assert [line.split()[:2] for line in listed[1:]] == [["app", "hybrid"], ["http", "removed"], ["pq", "removed"]]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--file", "/var/log/a", "--mode", "hybird"), "security: unknown mode 'hybird'"),
        (("--mirror-of", "nope"), "mirror_of: there is no stream 'nope'; existing streams: http"),
        (("--file", "/var/log/a", "--set", "batch.linger=5 parsecs"), "batch.linger: '5 parsecs' is not a duration"),
        (("--file", "/var/log/a", "--set", "sauce=1"), "sauce: is not known here"),
        (("--set", "source.type=http", "--set", "source.address=0.0.0.0:1"), "app.toml: source"),
    ],
)
def test_what_is_not_valid_is_refused_with_its_key_and_leaves_nothing(
    site: Site, options: tuple[str, ...], problem: str
) -> None:
    site.start_forwarder()
    code, text = add(site, "app", *options)
    assert code == 78, text
    assert str(site.streams_dir / "app.toml") in text
    assert problem in text
    assert [file.name for file in site.streams_dir.iterdir()] == ["http.toml"]
    assert runs(site, "http")


def test_what_the_running_forwarder_refuses_is_put_back(site: Site) -> None:
    site.write_stream("other", SOURCE.format("other"))
    site.start_forwarder()
    (site.streams_dir / "other.toml").unlink()
    before = {file: file.read_bytes() for file in site.streams_dir.iterdir()}
    code, text = add(site, "app")
    assert (code, "streams missing: other" in text) == (1, True), text
    code, text = ask(site, "logfwd", "streams", "remove", "http")
    assert code == 78, "every stream would be gone"
    assert {file: file.read_bytes() for file in site.streams_dir.iterdir()} == before


def test_without_a_forwarder_it_takes_effect_at_the_start_and_names_are_checked(site: Site) -> None:
    code, text = add(site, "app")
    assert (code, "no forwarder is running" in text) == (0, True), text
    for name in ("../evil", "", "a b", ".hidden"):
        assert ask(site, "logfwd", "streams", "add", name, "--file", "x")[0] == 2
    assert add(site, "bare", "--mode", "hybrid")[0] == 2, "it does not say what it reads"
    code, text = ask(site, "logfwd", "streams", "remove", "nope")
    assert (code, "existing streams: app, http" in text) == (1, True), text
    assert ask(site, "logfwd", "streams", "show", "app")[1].startswith(
        f'# {site.streams_dir / "app.toml"}\nname = "app"'
    )
    assert json.loads(run(site, "logfwd", "streams", "show", "app", "--json").stdout)["name"] == "app"
    site.start_forwarder()
    assert runs(site, "app", "http")


def test_a_stream_that_the_receiver_refuses_is_added_and_that_is_said(site: Site) -> None:
    site.start_forwarder()
    code, text = add(site, "secret")
    assert code == 0, text
    assert f"not_allowed: {FORWARDER_IDENTITY} may not write stream 'secret'" in text
    assert os.path.exists(site.streams_dir / "secret.toml")
