"""An operator shuts one host out of a running receiver, and lets it in again, while three hosts send; as processes.

Slow, because it runs four programs and waits as long as an operator would.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.lab import adminclient
from bench.lab.processes import wait_until
from bench.lab.site import Program, Site, command
from logreceiver.sinks.log.sink import read_records
from streams.security.pki import Authority
from streams.telemetry.client import NotAnswered
from tests.support.patience import PATIENCE_SECONDS

NAMES = ("a", "b", "c")
LASTS_SECONDS = 8.0
"""How long the certificate of one host lasts."""


class Host:
    """A forwarder with one stream of its own name, whose records are written without a pause."""

    def __init__(self, site: Site, name: str, receiver: str) -> None:
        self.name, self.directory = name, site.directory / name
        self.pki = site.directory / "pki"
        (self.directory / "streams.d").mkdir(parents=True)
        (self.directory / "logfwd.toml").write_text(
            f'state_dir = "state"\nreceivers = ["{receiver}"]\nserver_name = "localhost"\n'
            f'[tls]\ncertificate = "../pki/{name}.pem"\nkey = "../pki/{name}.key"\nca = "../pki/ca.pem"\n'
            '[admin]\naddress = "127.0.0.1:0"\n'
        )
        (self.directory / "streams.d" / f"{name}.toml").write_text(
            f'name = "{name}"\n[source]\ntype = "file"\npaths = ["in.log"]\nscan = "100ms"\n[batch]\nlinger = "20ms"\n'
        )
        config = str(self.directory / "logfwd.toml")
        self.program = Program([command("logfwd"), "run", "-c", config], self.directory / "logfwd.jsonl")
        self.written = 0

    def issue(self, *, seconds: float = 86400.0) -> None:
        """A certificate that lasts this long."""
        start = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds, days=-1)
        Authority.load(self.pki).issue(
            identities=[f"spiffe://demo/{self.name}"],
            hosts=[],
            out=self.pki / self.name,
            days=1,
            not_before=start,
            force=True,
        )

    def write(self) -> None:
        with (self.directory / "in.log").open("a") as out:
            out.write("".join(f"{line(number)}\n" for number in range(self.written, self.written + 20)))
        self.written += 20

    def row(self) -> dict[str, Any]:
        (row,) = adminclient.streams(self.program.admin_address())
        return row

    def since(self) -> float | None:
        """When its link was made (seconds since the epoch); None without one."""
        with contextlib.suppress(NotAnswered):
            link = self.row()["link"]
            return None if link is None else float(link["since"])
        return None

    def acknowledged(self) -> int:
        with contextlib.suppress(NotAnswered, ValueError):  # or its stream is not there yet
            return int(self.row()["records"]["acknowledged"])
        return 0


def line(number: int) -> str:
    return f'{{"n":{number}}}'


class Fleet:
    """A receiver with its control socket, and three hosts."""

    def __init__(self, directory: Path) -> None:
        self.site = Site(directory)
        self.site.make_pki()
        self.config = directory / "logreceiver.toml"
        subprocess.run([command("logfwd"), "pki", "revoke", str(directory / "pki")], check=True, capture_output=True)
        more = 'control_socket = "control.sock"\ncrl = ["pki/crl.pem"]\n'
        sink = 'type = "log"\ndirectory = "log"'
        self.site.write_receiver(sink, listeners={"localhost:0": '["hybrid"]'}, more=more)
        (address,) = self.site.start_receiver()
        self.hosts = {name: Host(self.site, name, address) for name in NAMES}

    def start(self, *, short_lived: str = "") -> None:
        for name, host in self.hosts.items():
            host.issue(seconds=LASTS_SECONDS if name == short_lived else 86400.0)
            host.program.start()

    def reload(self, *options: str) -> dict[str, Any]:
        argv = [command("logreceiver"), "reload", "-c", str(self.config), "--json", *options]
        done = subprocess.run(argv, check=True, capture_output=True, text=True)
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        done = threading.Event()

        def write() -> None:
            while not done.wait(0.02):
                for host in self.hosts.values():
                    host.write()

        thread = threading.Thread(target=write)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def stop(self) -> None:
        for host in self.hosts.values():
            if host.program.running():
                host.program.stop()
        self.site.stop()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path / "site")
    try:
        yield made
    finally:
        made.stop()


def shut_out(fleet: Fleet, way: str) -> float:
    """Take the rights of host b away; returns when that took effect (monotonic seconds)."""
    pki = fleet.site.directory / "pki"
    if way == "deny":
        text = fleet.config.read_text()
        fleet.config.write_text(text.replace("[[allow]]", '[[deny]]\nidentity = "spiffe://demo/b"\n[[allow]]', 1))
    else:
        subprocess.run([command("logfwd"), "pki", "revoke", str(pki), str(pki / "b.pem")], check=True)
    started = time.monotonic()
    answer = fleet.reload("--check")
    if way == "deny":  # a revocation list may have been seen before it is asked for
        assert (answer["outcome"], answer["links"], answer["ends"]) == ("checked", 3, 1)
    assert fleet.reload()["outcome"] == "taken"
    return started


def let_in(fleet: Fleet, way: str) -> None:
    if way == "deny":
        text = fleet.config.read_text()
        fleet.config.write_text(text.replace('[[deny]]\nidentity = "spiffe://demo/b"\n', ""))
        assert fleet.reload()["taken"] == ["deny"]
    else:
        fleet.hosts["b"].issue()


@pytest.mark.parametrize("way", ["deny", "revoked", "expired"])
def test_one_host_is_shut_out_within_seconds_and_resumes_exactly_and_no_other_notices(fleet: Fleet, way: str) -> None:
    host = fleet.hosts["b"]
    with fleet.writing():
        fleet.start(short_lived="b" if way == "expired" else "")
        started = time.monotonic()
        for each in fleet.hosts.values():
            assert wait_until(lambda each=each: each.acknowledged() > 0, PATIENCE_SECONDS), each.program.tail()  # type: ignore[misc]
        links = {name: each.since() for name, each in fleet.hosts.items()}
        due = shut_out(fleet, way) if way != "expired" else started + LASTS_SECONDS
        assert wait_until(lambda: host.since() is None, PATIENCE_SECONDS, every_seconds=0.02)
        took = time.monotonic() - due
        print(f"{way}: without a link {took:.2f} s after the {'end' if way == 'expired' else 'reload was asked for'}")
        time.sleep(1.0)  # it tries to come back meanwhile
        stored = host.acknowledged()
        others = {name: fleet.hosts[name].acknowledged() for name in ("a", "c")}
        time.sleep(1.0)
        assert host.acknowledged() == stored
        assert all(fleet.hosts[name].acknowledged() > before for name, before in others.items())
        let_in(fleet, way)
        assert wait_until(lambda: host.acknowledged() > stored, PATIENCE_SECONDS), host.program.tail()
    for each in fleet.hosts.values():
        assert wait_until(lambda each=each: each.acknowledged() == each.written, PATIENCE_SECONDS), each.program.tail()  # type: ignore[misc]
        assert each.row()["resets"] == 0
    for name in ("a", "c"):
        assert fleet.hosts[name].since() == pytest.approx(links[name], abs=0.5), "it is still its first link"
    fleet.stop()
    for each in fleet.hosts.values():
        records = [
            bytes(record.value or b"").decode() for record in read_records(fleet.site.directory / "log", each.name)
        ]
        assert records == [line(number) for number in range(each.written)]


def test_a_reload_by_the_command_says_what_came_of_it(fleet: Fleet) -> None:
    argv = [command("logreceiver"), "reload", "-c", str(fleet.config)]

    def reload(text: str, *options: str) -> tuple[int, str]:
        fleet.config.write_text(text)
        done = subprocess.run([*argv, *options], check=False, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    good = fleet.config.read_text()
    code, output = reload(good)
    assert code == 0
    assert output.startswith("taken: no key has changed\nlinks: 0, of which 0 end\nconfiguration: ")
    changed = good.replace('"127.0.0.1:0"', '"127.0.0.1:1"') + "[limits]\nmax_links = 7\n"
    code, output = reload(changed, "--check")
    assert code == 0
    assert "would be taken: limits.max_links\nwaits for a restart: admin.address\n" in output
    code, output = reload(good.replace("[[allow]]", "[[alow]]"))
    assert code == 78
    assert "alow: is not known here" in output
    assert "refused, and nothing was changed: mend what the problems name" in output
    code, output = reload(good.replace("control_socket", "control_sockets"))
    assert code == 2
    assert "has no control_socket" in output
    fleet.site.receiver.stop()
    code, output = reload(good)
    assert code == 69
    assert "control.sock does not answer: No such file or directory; is the program running" in output
