"""Streams in mode pq-auth next to hybrid ones, over one listener; a weak chain on either side; certificates renewed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from bench.lab.generate import generate_http
from bench.lab.site import Site
from logfwd.forwarder import Forwarder
from logreceiver.sinks.log.sink import read_records
from streams.errors import ConfigError
from streams.security import chains, pki
from streams.security.endpoint import Credentials, MlDsaFiles
from tests.support.installation import Events, Installation, acknowledged, eventually, forwarding, found, lines, running
from tests.support.tls import FORWARDER, issue

RECORDS = 9_999
NAMES: dict[str, dict[str, list[str]]] = {
    "receiver": {"identities": ["receiver"], "hosts": ["localhost"]},
    "forwarder": {"identities": [FORWARDER]},
}


def test_records_of_both_modes_arrive_over_one_listener_and_every_report_says_how_links_are_authenticated(
    tmp_path: Path,
) -> None:
    records = [bytes(line) for line in generate_http(RECORDS, seed=9)]
    (tmp_path / "http.log").write_bytes(b"".join(line + b"\n" for line in records))
    with Site(tmp_path) as site:
        site.make_pki()
        site.write_receiver('type = "log"\ndirectory = "log"', listeners={"localhost:0": '["hybrid", "pq-auth"]'})
        site.write_forwarder(site.start_receiver())
        site.write_stream("http", '[source]\ntype = "file"\npaths = ["http.log"]\n')
        site.write_stream("http-safe", 'security = "pq-auth"\nmirror_of = "http"\n')
        site.start_forwarder()
        assert site.wait_until_acknowledged(RECORDS, ["http", "http-safe"], seconds=30), site.forwarder.tail()
        rows = site.streams()
        site.forwarder.stop()
        handshakes = {
            entry["stream"]: entry["authentication"]
            for entry in site.forwarder.events()
            if entry["event"] == "handshake complete"
        }
        site.receiver.stop()
    expected = {"http": "ecdsa_secp256r1_sha256", "http-safe": "mldsa65"}
    assert {name: rows[name]["link"]["authentication"] for name in expected} == handshakes == expected
    for name in expected:
        assert rows[name]["link"]["group"] == "X25519MLKEM768"
        assert [record.value for record in read_records(tmp_path / "log", name)] == records
    kept = [msgspec.json.decode(entry.value or b"") for entry in read_records(tmp_path / "log", "logfwd.ledger")]
    found = {(each["stream"], each["mode"], each["authentication"]) for each in kept if each["kind"] == "batch"}
    assert found == {("http", "hybrid", expected["http"]), ("http-safe", "pq-auth", "mldsa65")}


# -- a weaker authority above an ML-DSA-65 leaf ----------------------------------------------------------------------


@pytest.fixture
def careless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that do not look at their own files, as peers of another make might not."""
    monkeypatch.setattr(chains, "wrong_kinds", lambda *_: iter(()))


def with_weaker_authority(installation: Installation, kind: str, party: str) -> dict[str, Credentials]:
    """Credentials of both parties: one has an ML-DSA-65 leaf under another authority, which both trust."""
    weaker = pki.create_authority(installation.directory / "weaker", kind=kind)
    files = issue(weaker, party, kind="mldsa65", **NAMES[party])
    both = installation.directory / "both.pem"
    both.write_bytes(files.ca.read_bytes() + (installation.parties.mldsa.directory / "ca.pem").read_bytes())
    credentials = {"receiver": installation.parties.receiver, "forwarder": installation.parties.forwarder}
    for name, each in credentials.items():
        assert each.mldsa is not None
        leaf = files if name == party else each.mldsa
        credentials[name] = msgspec.structs.replace(each, mldsa=MlDsaFiles(leaf.certificate, leaf.key, both))
    return credentials


def violations(forwarder: Forwarder) -> float | None:
    labels = {"stream": "http", "reason": "weaker_than_mode"}
    return forwarder.registry.get_sample_value("tls_policy_violations_total", labels)


@pytest.mark.usefixtures("careless")
@pytest.mark.parametrize(("kind", "scheme"), [("ec", "ecdsa_secp256r1_sha256"), ("rsa", "rsa_pkcs1_sha256")])
@pytest.mark.parametrize("weak", ["receiver", "forwarder"])
async def test_a_weaker_authority_is_refused_by_the_other_end_with_the_reason(
    installation: Installation, events: Events, kind: str, scheme: str, weak: str
) -> None:
    credentials = with_weaker_authority(installation, kind, weak)
    receiver = installation.receiver_config(modes=("hybrid", "pq-auth"), credentials=credentials["receiver"])
    installation.append(*lines(10))
    async with running(receiver) as service:
        stream = installation.stream(security="pq-auth")
        address = service.listeners[0].address
        config = installation.forwarder_config(address, stream, credentials=credentials["forwarder"])
        async with forwarding(config) as forwarder:
            await eventually(lambda: found(events, "link failed"))
            assert acknowledged(forwarder) == 0
            violated = violations(forwarder)
        refused_there = service.registry.get_sample_value("logreceiver_refused_links_total", {"code": "policy"})
    assert installation.stored() == []
    failed = found(events, "link failed")[0]
    reason = f"by {scheme}: its own key is ML-DSA-65, but its chain is not signed as strongly"
    assert reason in failed["detail"]
    if weak == "receiver":
        assert (failed["reason"], violated, refused_there) == ("policy", 1, None)
    else:
        refusal = found(events, "link refused")[0]
        assert (refusal["code"], refusal["authentication"]) == ("policy", scheme)
        assert reason in refusal["reason"]
        assert refused_there is not None


@pytest.mark.parametrize("weak", ["receiver", "forwarder"])
async def test_a_program_with_a_weaker_authority_of_its_own_makes_no_link(
    installation: Installation, events: Events, weak: str
) -> None:
    wrong = with_weaker_authority(installation, "ec", weak)[weak]
    if weak == "receiver":
        receiver = installation.receiver_config(modes=("hybrid", "pq-auth"), credentials=wrong)
        with pytest.raises(ConfigError, match=r"tls\.mldsa\.certificate: CN=receiver is signed with ECDSA"):
            async with running(receiver):
                pass
        return
    receiver = installation.receiver_config(modes=("hybrid", "pq-auth"))
    installation.append(*lines(10))
    async with running(receiver) as service:
        stream = installation.stream(security="pq-auth")
        config = installation.forwarder_config(service.listeners[0].address, stream, credentials=wrong)
        async with forwarding(config):
            await eventually(lambda: found(events, "link failed"))
    assert (
        "is signed with ECDSA with SHA-256; mode pq-auth demands mldsa65" in found(events, "link failed")[0]["detail"]
    )
    assert not found(events, "handshake failed")


# -- reloads -------------------------------------------------------------------


async def test_new_mldsa_certificates_are_used_and_wrong_ones_are_not(
    installation: Installation, events: Events
) -> None:
    authority = installation.parties.mldsa

    def expiry() -> float:
        value = service.registry.get_sample_value(
            "tls_certificate_expiry_timestamp_seconds", {"stream": "", "owner": "own"}
        )
        assert value is not None
        return value

    async with running(installation.receiver_config(modes=("pq-auth", "hybrid"))) as service:
        before = expiry()
        issue(authority, "receiver", kind="mldsa65", force=True, days=2, **NAMES["receiver"])
        await service.reload_certificates()
        assert len(found(events, "certificate reloaded")) == 1
        assert expiry() < before - 80 * 86400
        issue(authority, "receiver", kind="ec", force=True, days=50, **NAMES["receiver"])
        await service.reload_certificates()
        (refused,) = found(events, "certificate reload failed")
        assert "tls.mldsa.certificate: its key is EC secp256r1; mode pq-auth demands mldsa65" in refused["reason"]
        assert expiry() < before - 80 * 86400, "the one before stays in use"
        installation.append(*lines(5))
        stream = installation.stream(security="pq-auth")
        config = installation.forwarder_config(service.listeners[0].address, stream)
        async with forwarding(config) as forwarder:
            await eventually(lambda: acknowledged(forwarder) == 5)


async def test_a_changed_mldsa_file_is_noticed(
    installation: Installation, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logreceiver.service.CERTIFICATE_CHECK_SECONDS", 0.02)
    async with running(installation.receiver_config(modes=("pq-auth",))):
        await asyncio.sleep(0.05)  # by then the receiver has looked once
        issue(installation.parties.mldsa, "receiver", kind="mldsa65", force=True, days=9, **NAMES["receiver"])
        await eventually(lambda: found(events, "certificate reloaded"))


async def test_a_forwarder_shows_its_first_certificate_to_expire_and_forgets_those_it_no_longer_uses(
    installation: Installation,
) -> None:
    issue(installation.parties.mldsa, "forwarder", kind="mldsa65", force=True, days=5, **NAMES["forwarder"])

    def days_left(forwarder: Forwarder) -> float:
        labels = {"stream": "", "owner": "own"}
        value = forwarder.registry.get_sample_value("tls_certificate_expiry_timestamp_seconds", labels)
        return 0.0 if value is None else (value - installation.source.stat().st_mtime) / 86400

    async with running(installation.receiver_config(modes=("pq-auth", "hybrid"))) as service:
        address = service.listeners[0].address
        safe = installation.stream(security="pq-auth")
        twin = msgspec.structs.replace(safe, name="twin", mirror_of="http", security="hybrid", source=None)
        async with forwarding(installation.forwarder_config(address, safe, twin)) as forwarder:
            await eventually(lambda: 4 < days_left(forwarder) < 6)
            await eventually(lambda: len([row for row in forwarder.describe() if row["link"]]) == 2)
            assert 4 < days_left(forwarder) < 6
            other = installation.forwarder_config(address, installation.stream(), twin)
            await forwarder.reload(lambda: other)
            await eventually(lambda: days_left(forwarder) > 80)
