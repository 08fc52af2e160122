"""What an operator sees of running programs: `status` of both, and `links`; people, scripts and exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.lab.processes import wait_until
from bench.lab.site import FORWARDER_IDENTITY, Site, command
from tests.integration.test_workers import WORKERS, workers_of, write_receiver

RECORDS = 500
PATIENCE_SECONDS = 60.0
SOURCE = '[source]\ntype = "file"\npaths = ["{}.log"]\nscan = "100ms"\n'
RULE = '[[allow]]\nidentity = "spiffe://demo/*"\nstreams = ["*"]'


def run(site: Site, program: str, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [command(program), *words, "-c", str(site.directory / f"{program}.toml")]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS)


def ask(site: Site, program: str, *words: str) -> tuple[int, str]:
    done = run(site, program, *words)
    return done.returncode, done.stdout + done.stderr


def as_json(site: Site, program: str, word: str) -> tuple[int, dict[str, Any]]:
    done = run(site, program, word, "--json")
    return done.returncode, json.loads(done.stdout)


def append(site: Site, stream: str, count: int = RECORDS) -> None:
    with (site.directory / f"{stream}.log").open("a") as out:
        out.write("".join(f'{{"n":{number}}}\n' for number in range(count)))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """One receiver with a control socket that allows all streams but `secret`; a forwarder for it, not started."""
    with Site(tmp_path / "site") as made:
        made.make_pki()
        made.write_receiver(
            'type = "log"\ndirectory = "log"',
            listeners={"localhost:0": '["hybrid"]'},
            more='control_socket = "control.sock"',
        )
        config = made.directory / "logreceiver.toml"
        config.write_text(config.read_text().replace(RULE, RULE.replace('"*"]', '"http", "app"]')))
        for stream in ("http", "app", "secret"):
            made.write_stream(stream, SOURCE.format(stream))
        yield made


def test_a_line_for_each_stream_says_how_it_does_and_the_exit_code_whether_all_is_well(site: Site) -> None:
    assert ask(site, "logfwd", "status")[0] == 78, "there is no configuration yet"
    site.write_forwarder(site.start_receiver())
    code, text = ask(site, "logfwd", "status")
    assert (code, "is the program running, as this user?" in text) == (69, True)
    append(site, "http")
    site.start_forwarder()
    assert site.wait_until_acknowledged(RECORDS, ["http"], PATIENCE_SECONDS)

    code, text = ask(site, "logfwd", "status")
    refused = f"the peer refused: not_allowed: {FORWARDER_IDENTITY} may not write stream 'secret'"
    title, app, http, secret, trouble = text.rstrip().splitlines()
    assert code == 1
    assert title.split() == ["STREAM", "MODE", "STATE", "RECORDS/S", "WAITING", "OLDEST", "LAG", "LAST", "ERROR"]
    assert http.split() == ["http", "hybrid", "connected", "0.0", "0", "-", "0", "B", "-"]
    assert app.split()[:3] == ["app", "hybrid", "connected"]
    assert secret.split()[0] == "secret"
    assert refused in secret, "in the receiver's own words"
    assert trouble.startswith("secret/link: refused for"), trouble
    assert refused in trouble

    (site.streams_dir / "secret.toml").write_text("removed = true\n" + (site.streams_dir / "secret.toml").read_text())
    assert ask(site, "logfwd", "reload")[0] == 0
    code, answer = as_json(site, "logfwd", "status")
    assert (code, answer["trouble"]) == (0, {})
    assert {row["stream"]: row["state"] for row in answer["streams"]} == {"app": "connected", "http": "connected"}

    (site.directory / "logfwd.toml").write_text("")
    assert ask(site, "logfwd", "status")[0] == 78, "without a file it is not known whom to ask"


def test_a_rate_is_that_of_the_last_second(site: Site) -> None:
    site.write_forwarder(site.start_receiver())
    site.start_forwarder()
    (site.streams_dir / "secret.toml").unlink()
    argv = [command("logfwd"), "status", "--json", "-c", str(site.directory / "logfwd.toml")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as asking:
        while asking.poll() is None:
            append(site, "http", 50)
            wait_until(lambda: asking.poll() is not None, 0.05, every_seconds=0.01)
        assert asking.stdout is not None
        rows = {row["stream"]: row for row in json.load(asking.stdout)["streams"]}
    assert rows["http"]["records_per_second"] > 50
    assert rows["app"]["records_per_second"] == 0


def test_a_receiver_says_what_it_stored_and_who_is_linked(site: Site) -> None:
    code, text = ask(site, "logreceiver", "status")
    assert code == 69, text
    site.write_forwarder(site.start_receiver())
    append(site, "http")
    site.start_forwarder()
    assert site.wait_until_acknowledged(RECORDS, ["http"], PATIENCE_SECONDS)

    code, text = ask(site, "logreceiver", "status")
    assert code == 0, text
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines()}
    assert rows["STREAM"] == ["LINKS", "RECORDS/S", "STORED", "DUPLICATE", "REFUSED", "UNCERTAIN"]
    assert rows["http"] == ["1", "0.0", str(RECORDS), "0", "0", "0"]

    code, text = ask(site, "logreceiver", "links")
    links = {line.split()[0]: line.split() for line in text.splitlines()[1:]}
    assert (code, set(links)) == (0, {"http", "app"})
    assert links["http"][1] == FORWARDER_IDENTITY
    assert links["http"][3:6] == ["hybrid", "X25519MLKEM768", "http"]
    assert [row["stream"] for row in as_json(site, "logreceiver", "links")[1]["links"]] == ["app", "http"]

    config = site.directory / "logreceiver.toml"
    good = config.read_text()
    config.write_text(good.replace("[[allow]]", "[[alow]]"))
    assert ask(site, "logreceiver", "reload")[0] == 78
    code, text = ask(site, "logreceiver", "status")
    assert (code, "config: " in text) == (1, True), text
    config.write_text(good.replace('control_socket = "control.sock"', ""))
    code, text = ask(site, "logreceiver", "status")
    assert (code, "has no control_socket; set one" in text) == (2, True)


def test_workers_answer_as_one_and_one_that_is_silent_is_named(tmp_path: Path) -> None:
    with Site(tmp_path / "site") as site:
        address = write_receiver(site, "127.0.0.1:1")
        config = site.directory / "logreceiver.toml"
        config.write_text(f'control_socket = "control.sock"\n{config.read_text()}')
        names = [f"part-{number}" for number in range(6)]
        for name in names:
            site.write_stream(name, SOURCE.format(name))
        site.write_forwarder([address])
        site.receiver.start()
        site.receiver.wait_for("admin listening", times=WORKERS)
        site.start_forwarder()

        def linked() -> bool:
            return len(as_json(site, "logreceiver", "links")[1]["links"]) == len(names)

        assert wait_until(linked, PATIENCE_SECONDS, every_seconds=0.2)
        code, answer = as_json(site, "logreceiver", "status")
        assert code == 1, "there is no Kafka"
        assert {row["stream"]: row["links"] for row in answer["streams"]} == dict.fromkeys(names, 1)
        assert {part.split(":")[0] for part in answer["trouble"]} == {f"worker {each}" for each in range(WORKERS)}
        stopped = workers_of(site)[-1]
        os.kill(stopped, signal.SIGSTOP)
        try:
            code, answer = as_json(site, "logreceiver", "links")
        finally:
            os.kill(stopped, signal.SIGCONT)
        assert (code, len(answer["silent"])) == (1, 1)
