"""The same real records in every security mode into a real Kafka; every report says what each link had."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from bench.demo import lay_out, streams_of
from bench.lab.generate import generate_http
from bench.lab.kafka import Kafka
from bench.lab.oracle import read_topic
from bench.lab.site import Site, command
from streams.security.modes import MODES
from tests.integration.test_delivery_to_kafka import REAL_RECORDS
from tests.support.browser import chromium, visit

ECDSA = "ecdsa_secp256r1_sha256"
AUTHENTICATION = {"pq-auth": "mldsa65", "kemtls": "ML-KEM-768", "kemtls-pdk": "ML-KEM-768"}
"""Of the modes that are not authenticated by ECDSA."""


@pytest.mark.kafka
def test_the_real_records_arrive_in_every_mode_and_every_report_says_how_links_are_protected(
    tmp_path: Path, kafka: Kafka
) -> None:
    records = REAL_RECORDS.read_bytes() if REAL_RECORDS.exists() else b"".join(line + b"\n" for line in _made(9_999))
    lines = records.splitlines()
    assert len(lines) == 9_999
    streams = {f"every-{name}": mode for name, mode in streams_of(list(MODES)).items()}
    expected = {name: (mode, MODES[mode].groups[0], AUTHENTICATION.get(mode, ECDSA)) for name, mode in streams.items()}
    (tmp_path / "http.log").write_bytes(records)
    with Site(tmp_path) as site:
        lay_out(site, f'type = "kafka"\nbrokers = ["{kafka.bootstrap}"]\ncreate_topics = true', streams)
        site.start_forwarder()
        assert site.wait_until_acknowledged(len(lines), list(streams), seconds=120), site.forwarder.tail()
        rows = site.streams()
        shown = {name: (row["mode"], row["link"]["group"], row["link"]["authentication"]) for name, row in rows.items()}
        assert shown == expected
        admin = str(site.receiver.wait_for("admin listening")[-1]["address"])
        posture = json.loads(_printed("posture", "--json", "--admin", admin))
        assert {each["stream"]: _protection(each["shares"]) for each in posture["streams"]} == {
            name: [(group, how)] for name, (_, group, how) in expected.items()
        }
        with chromium() as browser, visit(browser, site.admin_address) as page:
            page.get_by_role("button", name=next(iter(streams)), exact=True).click()  # so many are folded
            for name, (mode, group, how) in expected.items():
                head = page.locator(f'th[data-stream="{name}"]')
                for part in (f"{mode} (experimental)" if MODES[mode].experimental else mode, group, how):
                    expect(head).to_contain_text(part)
        assert site.forwarder.stop() == 0
        (original, *_) = streams
        answers = json.loads(_printed("ledger", original, "--json", "-c", str(tmp_path / "logreceiver.toml")))
        assert site.receiver.stop() == 0
    counted = {each["stream"]: (each["sent"], each["stored"], each["missing"], each["twice"]) for each in answers}
    assert counted == dict.fromkeys(streams, (len(lines), len(lines), 0, 0))
    ledger = {each["stream"]: {(one["mode"], *way) for one, way in _ways(each["shares"])} for each in answers}
    assert ledger == {name: {way} for name, way in expected.items()}
    for name in streams:
        assert list(read_topic(kafka.bootstrap, name)) == lines


def _ways(shares: list[dict[str, Any]]) -> list[tuple[dict[str, Any], tuple[str, str]]]:
    return [(each, (each["group"], each["authentication"])) for each in shares]


def _protection(shares: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [way for _, way in _ways(shares)]


def _made(count: int) -> list[bytes]:
    return [bytes(line) for line in generate_http(count, seed=4)]


def _printed(*arguments: str) -> str:
    done = subprocess.run([command("logreceiver"), *arguments], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout
