"""`logreceiver posture` of running programs: real links, two identities, a restart, and workers that are added up."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bench.lab.generate import generate_http
from bench.lab.site import Site, command
from streams.security import pki
from tests.support.patience import PATIENCE_SECONDS

RECORDS = 2_000
OTHER = "spiffe://demo/host-2"


@dataclass
class Installed:
    """A receiver, and two forwarders of different identities that have sent everything."""

    site: Site
    other: Site
    address: str
    admin: str

    def posture(self, *options: str) -> subprocess.CompletedProcess[str]:
        argv = [command("logreceiver"), "posture", "-c", str(self.site.directory / "logreceiver.toml"), *options]
        return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)

    def report(self, *addresses: str) -> dict[str, Any]:
        asked = [word for address in addresses or (self.admin,) for word in ("--admin", address)]
        answer = self.posture("--json", *asked)
        assert answer.returncode == 0, answer.stderr
        return dict(json.loads(answer.stdout))

    def stream(self, name: str, identity: str) -> dict[str, Any]:
        rows = self.report()["streams"]
        (row,) = [each for each in rows if (each["stream"], each["identity"]) == (name, identity)]
        return dict(row)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    directory = tmp_path_factory.mktemp("posture")
    with Site(directory / "one") as site, Site(directory / "two", identity=OTHER) as other:
        site.make_pki()
        site.write_receiver(
            'type = "log"\ndirectory = "log"', listeners={"127.0.0.1:0": '["hybrid", "classical", "classical-tls12"]'}
        )
        (address,) = site.start_receiver()
        issue_for(other, site.directory / "pki")
        for each in (site, other):
            write_streams(each)
            each.write_forwarder([address])
            each.start_forwarder()
            assert each.wait_until_acknowledged(RECORDS, ["http", "http-twin"], seconds=30), each.forwarder.tail()
        yield Installed(site, other, address, site.receiver.admin_address())


def issue_for(site: Site, authority: Path) -> None:
    """A leaf of the same authority that ends in five days."""
    (site.directory / "pki").mkdir()
    (site.directory / "pki" / "ca.pem").write_bytes((authority / "ca.pem").read_bytes())
    pki.Authority.load(authority).issue(
        identities=[site.identity], hosts=[], days=5, out=site.directory / "pki" / "forwarder"
    )


def write_streams(site: Site) -> None:
    site.write_stream("http", '[source]\ntype = "file"\npaths = ["http.log"]\n')
    site.write_stream("http-twin", 'security = "classical-tls12"\nmirror_of = "http"\n')
    (site.directory / "http.log").write_bytes(b"".join(line + b"\n" for line in generate_http(RECORDS, seed=5)))


def test_a_twin_differs_from_its_original_by_how_it_is_protected(installed: Installed) -> None:
    for identity in (installed.site.identity, OTHER):
        (hybrid,) = installed.stream("http", identity)["shares"]
        (classical,) = installed.stream("http-twin", identity)["shares"]
        assert (hybrid["group"], hybrid["version"]) == ("X25519MLKEM768", "TLSv1.3")
        assert (classical["group"], classical["version"]) == ("secp256r1", "TLSv1.2")
        assert hybrid["bytes"] == classical["bytes"] > 0, "a twin carries the same bytes"
        for share in (hybrid, classical):
            assert (share["links"], share["share_of_links"], share["share_of_bytes"]) == (1, 1, 1)
            assert share["certificate_algorithm"] == "EC secp256r1"
            assert share["authentication"] == "ecdsa_secp256r1_sha256"
            assert share["oldest_open_link_seconds"] > 0


def test_certificates_are_those_of_the_forwarders_soonest_to_expire_first(installed: Installed) -> None:
    identities = (OTHER, installed.site.identity)
    soon, late = [each for each in installed.report()["certificates"] if each["identity"] in identities]
    assert (soon["identity"], late["identity"]) == identities
    assert (soon["open_links"], late["open_links"]) == (2, 2)
    assert 4.9 < soon["days_left"] <= 5
    assert 29.9 < late["days_left"] <= 30


def test_people_get_a_table(installed: Installed) -> None:
    answer = installed.posture("--admin", f"http://{installed.admin}/")
    assert answer.returncode == 0, answer.stderr
    for words in ("http-twin", OTHER, "X25519MLKEM768", "TLSv1.2", "EC secp256r1", "ecdsa_secp256r1_sha256", "100.00%"):
        assert words in answer.stdout


def test_reports_of_several_addresses_are_merged(installed: Installed) -> None:
    once, twice = installed.report(), installed.report(installed.admin, installed.admin)
    assert (twice["links"], twice["bytes"]) == (2 * once["links"], 2 * once["bytes"])
    assert [share["share_of_bytes"] for share in twice["shares"]] == [
        share["share_of_bytes"] for share in once["shares"]
    ]


def test_a_changed_mode_shows_as_a_second_share(installed: Installed, tmp_path: Path) -> None:
    with Site(tmp_path / "three", identity="spiffe://demo/host-3") as site:
        issue_for(site, installed.site.directory / "pki")
        (site.directory / "http.log").write_bytes(b'{"n": 1}\n')
        site.write_forwarder([installed.address])
        for mode in ("hybrid", "classical"):
            site.write_stream("http", f'security = "{mode}"\n[source]\ntype = "file"\npaths = ["http.log"]\n')
            site.start_forwarder()
            site.forwarder.wait_for("link opened")
            assert site.wait_until_acknowledged(1, ["http"], seconds=PATIENCE_SECONDS), site.forwarder.tail()
            shares = installed.stream("http", site.identity)["shares"]
            assert site.forwarder.stop() == 0
    assert [(each["group"], each["links"], each["open_links"]) for each in shares] == [
        ("X25519MLKEM768", 1, 0),
        ("X25519", 1, 1),
    ]
    assert [each["share_of_bytes"] for each in shares] == [1, 0]


def test_without_a_receiver_there_is_no_answer(installed: Installed) -> None:
    answer = installed.posture("--admin", "127.0.0.1:1")
    assert (answer.returncode, answer.stdout) == (69, "")
    assert "no receiver answers" in answer.stderr
