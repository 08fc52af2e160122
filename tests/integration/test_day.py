"""A day of an operator in fast motion, on programs that run and are never restarted.

Three hosts send to two receivers and a real Kafka under a steady load, while certificates are renewed, receivers'
configurations change, a stream comes, changes and goes, a host is revoked and let in again, and brokers are rolled.
`make test` has one such day with one broker, `make chaos` several with three.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from bench.lab import adminclient
from bench.lab.feeder import Feeder
from bench.lab.kafka import Kafka
from bench.lab.kafkatools import KafkaFailed, jars, java
from bench.lab.oracle import judge, read_topic
from bench.lab.processes import wait_until
from bench.lab.site import Program, Site, command
from streams.telemetry.client import NotAnswered
from tests.support.kafka import UP_SOONER
from tests.support.patience import PATIENCE_SECONDS

pytestmark = [pytest.mark.kafka, pytest.mark.slow]
HOSTS = {"h1": ("web", "app"), "h2": ("mail",), "h3": ("cart",)}
"""Their streams; h3 is the one that is revoked."""
RECORDS_PER_SECOND = 300
DRAIN_SECONDS = 120.0


def run(*words: str | Path) -> str:
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


class Host:
    """A forwarder and what writes the files that it reads."""

    def __init__(self, site: Site, name: str, receivers: list[str]) -> None:
        self.name, self.directory, self.pki = name, site.directory / name, site.directory / "pki"
        self.config = self.directory / "logfwd.toml"
        (self.directory / "streams.d").mkdir(parents=True)
        run(command("logfwd"), "pki", "issue", self.pki, "--identity", f"spiffe://demo/{name}", "--out", name)
        listed = ", ".join(f'"{receiver}"' for receiver in receivers)
        self.config.write_text(
            f'state_dir = "state"\nreceivers = [{listed}]\nserver_name = "localhost"\n'
            f'[tls]\ncertificate = "../pki/{name}.pem"\nkey = "../pki/{name}.key"\nca = "../pki/ca.pem"\n'
            '[admin]\naddress = "127.0.0.1:0"\n'
        )
        self.program = Program([command("logfwd"), "run", "-c", str(self.config)], self.directory / "logfwd.jsonl")
        self.feeders: dict[str, Feeder] = {}

    def write_stream(self, stream: str, *, linger: str = "20ms") -> None:
        (self.directory / "streams.d" / f"{stream}.toml").write_text(
            f'name = "{stream}"\n[source]\ntype = "file"\npaths = ["{stream}.log"]\nscan = "100ms"\n'
            f'[batch]\nlinger = "{linger}"\n'
        )

    def feed(self, stream: str) -> None:
        self.feeders[stream] = Feeder(self.directory / f"{stream}.log", stream, 1, per_second=RECORDS_PER_SECOND)
        self.feeders[stream].start()

    def ask(self, *words: str | Path) -> str:
        return run(command("logfwd"), *words, "-c", self.config)

    def reload(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.ask("reload", "--json"))
        assert answer["outcome"] == "taken"
        return answer

    def rows(self) -> dict[str, dict[str, Any]]:
        with contextlib.suppress(NotAnswered):
            return {row["stream"]: row for row in adminclient.streams(self.program.admin_address())}
        return {}

    def links(self) -> dict[str, float]:
        """When each link was made that is in use."""
        return {name: row["link"]["since"] for name, row in self.rows().items() if row["state"] == "connected"}

    def is_drained(self, *streams: str) -> bool:
        """Whether all that was written is acknowledged; only once the feeders have stopped."""
        rows = self.rows()
        return all(
            name in rows and rows[name]["records"]["acknowledged"] == self.feeders[name].sent for name in streams
        )


class Day:
    """Everything that runs, and the acts of its operator."""

    def __init__(self, directory: Path, kafka: Kafka) -> None:
        self.kafka, self.site = kafka, Site(directory)
        self.site.make_pki()
        self.pki = directory / "pki"
        run(command("logfwd"), "pki", "revoke", self.pki)
        self.receivers = {name: self.site.make_receiver(name) for name in ("r1", "r2")}
        addresses = []
        for name, receiver in self.receivers.items():
            self.write_receiver(name, max_links=1000)
            receiver.start()
            addresses.append(str(receiver.wait_for("listening")[0]["address"]))
        self.hosts = {name: Host(self.site, name, addresses) for name in HOSTS}
        for name, streams in HOSTS.items():
            for stream in streams:
                self.hosts[name].write_stream(stream)
            self.hosts[name].program.start()
            for stream in streams:
                self.hosts[name].feed(stream)

    def write_receiver(self, name: str, *, max_links: int) -> None:
        brokers = self.kafka.bootstrap.replace(",", '", "')
        sink = f'type = "kafka"\nbrokers = ["{brokers}"]\ncreate_topics = true\n'
        more = f'control_socket = "{name}.sock"\ncrl = ["pki/crl.pem"]\n[limits]\nmax_links = {max_links}\n'
        sink += f"replication_factor = {len(self.kafka.brokers)}"
        self.site.write_receiver(sink, listeners={"localhost:0": '["hybrid"]'}, more=more, name=name)

    def pids(self) -> list[int]:
        return [program.pid for program in self.programs() if program.running()]

    def programs(self) -> list[Program]:
        return [*self.receivers.values(), *(host.program for host in self.hosts.values())]

    def has_refused(self, receiver: Program, certificate: Path) -> bool:
        """Whether it has turned away, or cut off, a link with this certificate because that was revoked."""
        serial = x509.load_pem_x509_certificate(certificate.read_bytes()).serial_number
        reasons = [event["reason"] for event in receiver.events() if event.get("event") == "link refused"]
        return f"the certificate with serial number {serial:x} was revoked" in reasons

    def wait_for_links(self) -> None:
        everyone = self.hosts.values()
        assert wait_until(lambda: all(len(h.links()) == len(h.rows()) > 0 for h in everyone), PATIENCE_SECONDS)

    def links(self, *names: str) -> dict[str, float]:
        return {stream: since for name in names for stream, since in self.hosts[name].links().items()}

    # -- acts ------------------------------------------------------------------------------------------------------

    def renew_certificates(self) -> None:
        before = self.links(*HOSTS)
        leaves = [self.pki / f"{name}.pem" for name in ("receiver", *HOSTS)]
        run(command("logfwd"), "pki", "renew", self.pki, *leaves)
        for name in self.receivers:
            run(command("logreceiver"), "reload", "-c", self.site.directory / f"{name}.toml")
        for host in self.hosts.values():
            assert host.reload()["renewed"] == ["tls"]
        renewed = lambda: len(self.links(*HOSTS).items() - before.items()) == len(before)  # noqa: E731
        assert wait_until(renewed, PATIENCE_SECONDS), (before, self.links(*HOSTS))

    def change_receivers(self, max_links: int) -> None:
        before = self.links(*HOSTS)
        for name in self.receivers:
            self.write_receiver(name, max_links=max_links)
            answer = json.loads(
                run(command("logreceiver"), "reload", "--json", "-c", self.site.directory / f"{name}.toml")
            )
            assert (answer["outcome"], answer["taken"], answer["ends"]) == ("taken", ["limits.max_links"], 0)
        assert self.links(*HOSTS) == before

    def add_change_and_remove_a_stream(self, name: str) -> None:
        host, before = self.hosts["h1"], self.links("h1")
        host.feed(name)
        host.ask("streams", "add", name, "--file", str(host.directory / f"{name}.log"), "--set", "source.scan=100ms")
        assert wait_until(lambda: name in host.links(), PATIENCE_SECONDS)
        host.write_stream(name, linger="50ms")
        assert host.reload()["changed"] == [name]
        host.feeders[name].stop()
        assert wait_until(lambda: host.is_drained(name), PATIENCE_SECONDS), host.rows().get(name)
        host.ask("streams", "remove", name)
        (host.directory / "streams.d" / f"{name}.toml").unlink()
        host.ask("reload")
        assert host.links() == before, "other streams keep their links"

    def revoke_and_let_in_again(self) -> None:
        host, before, leaf = self.hosts["h3"], self.links("h1", "h2"), self.pki / "h3.pem"
        run(command("logfwd"), "pki", "revoke", self.pki, leaf)
        receivers = self.receivers.values()
        assert wait_until(lambda: all(self.has_refused(each, leaf) for each in receivers), PATIENCE_SECONDS)
        assert wait_until(lambda: not host.links(), PATIENCE_SECONDS), host.rows()
        assert "revoked" in str(host.rows()["cart"]["last_failure"])
        acknowledged = host.rows()["cart"]["records"]["acknowledged"]
        time.sleep(2.0)
        assert host.rows()["cart"]["records"]["acknowledged"] == acknowledged, "nothing of it is taken"
        assert self.links("h1", "h2") == before, "others keep their links"
        run(command("logfwd"), "pki", "renew", self.pki, leaf)
        host.reload()
        assert wait_until(lambda: bool(host.links()), PATIENCE_SECONDS), host.rows()

    def roll_brokers(self) -> None:
        for number in range(1, len(self.kafka.brokers) + 1):
            self.kafka.restart(number, clean=True)
            for host in self.hosts.values():
                for stream in HOSTS[host.name]:
                    now = host.rows()[stream]["records"]["acknowledged"]
                    moves = lambda: host.rows()[stream]["records"]["acknowledged"] > now  # noqa: B023, E731
                    assert wait_until(moves, DRAIN_SECONDS), (number, host.rows()[stream])

    def end(self) -> dict[str, tuple[int, dict[str, Any]]]:
        """Stop writing, and wait for everything; what was sent of each stream, with its last row."""
        for host in self.hosts.values():
            for feeder in host.feeders.values():
                if feeder.is_alive():
                    feeder.stop()
        found: dict[str, tuple[int, dict[str, Any]]] = {}
        for host in self.hosts.values():
            assert wait_until(lambda: host.is_drained(*HOSTS[host.name]), DRAIN_SECONDS), host.rows()  # noqa: B023
            found |= {name: (host.feeders[name].sent, host.rows()[name]) for name in HOSTS[host.name]}
        return found

    def stop(self) -> None:
        for program in reversed(self.programs()):
            if program.running():
                program.stop()


@pytest.fixture
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kafka]:
    try:
        java()
        jars()
    except KafkaFailed as error:
        pytest.skip(str(error))
    brokers: int = request.param
    settings = {"min.insync.replicas": str(max(brokers - 1, 1)), "controlled.shutdown.enable": "true"}
    with Kafka(tmp_path / "brokers", brokers=brokers, overrides=settings, jvm_options=UP_SOONER) as running:
        yield running


@pytest.mark.parametrize(
    ("cluster", "days"), [(1, 1), pytest.param(3, 4, marks=pytest.mark.chaos)], indirect=["cluster"]
)
def test_a_day_of_changes_loses_and_repeats_nothing_and_restarts_nobody(
    cluster: Kafka, days: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    day, began = Day(tmp_path / "site", cluster), time.monotonic()
    try:
        day.wait_for_links()
        pids = day.pids()
        own = []
        for number in range(days):
            own.append(f"own{number}")
            day.renew_certificates()
            day.change_receivers(2000 + number)
            day.add_change_and_remove_a_stream(own[-1])
            day.revoke_and_let_in_again()
            day.roll_brokers()
        ended = day.end()
        lasted = time.monotonic() - began
        assert (day.pids(), len(pids)) == (pids, 5), "nobody was restarted"
        rows = {name: row for name, (_, row) in ended.items()}
        sent = {name: count for name, (count, _) in ended.items()}
        sent |= {name: day.hosts["h1"].feeders[name].sent for name in own}
        found = [judge(name, count, read_topic(cluster.internal, name), source=name) for name, count in sent.items()]
    finally:
        day.stop()
    with capsys.disabled():
        print(f"\n{days} days with {len(cluster.brokers)} brokers in {lasted:.0f} s, {sum(sent.values())} records")
        for each in found:
            print(
                f"{each.stream:6} sent {each.sent} stored {each.stored} missing {each.missing} twice {each.twice} "
                f"out of order {each.out_of_order}"
            )
    assert all(each.exact for each in found), found
    assert [row["resets"] + row["records"]["dead_lettered"] for row in rows.values()] == [0] * len(rows)
