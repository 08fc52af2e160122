"""Handshakes are measured over real links, and taken apart from the bytes on the wire."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop
from click.testing import CliRunner
from cryptography.exceptions import InvalidTag

from bench.handshakes import wire_bytes
from bench.handshakes.command import cpu_seconds, handshakes, pooled, weigh
from bench.handshakes.server import start_server
from bench.handshakes.tap import tapped
from bench.lab.newlinks import credentials
from bench.lab.site import Site
from streams.security import stacks
from streams.security.modes import MODES

KEY_EXCHANGE_BYTES = {
    "classical-tls12": 65 + 65,
    "classical": 32 + 32,
    "hybrid": (32 + 1184) + (32 + 1088),
    "hybrid-preferred": (32 + 1184) + 32 + (32 + 1088),
    "hybrid-p256": (65 + 1184) + (65 + 1088),
    "pq-auth": (32 + 1184) + (32 + 1088),
    "kemtls": (32 + 1184) + (32 + 1088),
    "kemtls-pdk": (32 + 1184) + (32 + 1088),
}
"""Points of the curves, and the keys and ciphertexts of FIPS 203."""
ECDSA_BYTES = range(65 + 2 * 66, 65 + 2 * 72 + 1)
"""A point, and two signatures in DER: the certificate's and the handshake's."""
MLDSA65_BYTES = 1952 + 2 * 3309
"""A key and two signatures of FIPS 204 (table 2)."""
MLKEM768_BYTES = 1184 + 1088 + 3309
"""A key and a ciphertext of FIPS 203 (table 3), and the certificate's signature of FIPS 204."""
AUTHENTICATION_BYTES = {"pq-auth": [MLDSA65_BYTES], "kemtls": [MLKEM768_BYTES], "kemtls-pdk": [MLKEM768_BYTES]}
FLIGHTS = {"classical-tls12": (4, 2), "kemtls": (6, 3)}
TLS12_KINDS = [1, 2, 11, 12, 13, 14, 11, 16, 15, 20, 20]
TLS13_KINDS = [1, 2, 8, 13, 11, 15, 20, 11, 15, 20]
KEMTLS_KINDS = [1, 2, 8, 13, 11, 30, 11, 30, 20, 20]
PDK_KINDS = [1, 11, 2, 8, 30, 20, 20]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str]]]:
    """A directory with an authority in it, and the address of each mode."""
    directory = tmp_path_factory.mktemp("handshakes")
    Site(directory).make_pki()
    server, addresses = start_server(directory)
    yield directory / "pki", addresses
    server.stop()


@pytest.mark.parametrize("mode", MODES)
def test_the_parts_of_a_handshake_have_the_sizes_in_their_standards(
    site: tuple[Path, dict[str, str]], tmp_path: Path, mode: str
) -> None:
    found = weigh(site[1][mode], mode, site[0], tmp_path / "keys")
    assert found["key_exchange"] == KEY_EXCHANGE_BYTES[mode]
    assert (found["flights"], found["round_trips"]) == FLIGHTS.get(mode, (3, 1))
    for side in ("server", "client"):
        expected = AUTHENTICATION_BYTES.get(mode, ECDSA_BYTES)
        if (mode, side) == ("kemtls-pdk", "server"):
            expected = [1088]  # the ciphertext alone: no certificate
        assert found[f"{side}_authentication"] in expected


@pytest.mark.parametrize(
    ("mode", "kinds"),
    [("classical-tls12", TLS12_KINDS), ("hybrid", TLS13_KINDS), ("kemtls", KEMTLS_KINDS), ("kemtls-pdk", PDK_KINDS)],
)
def test_every_message_is_found_and_all_records_are_those_that_the_link_counts(
    site: tuple[Path, dict[str, str]], tmp_path: Path, mode: str, kinds: list[int]
) -> None:
    log = tmp_path / "keys"
    party = stacks.client(MODES[mode], credentials(site[0], "forwarder"), key_log=log)
    facts, pieces = uvloop.run(tapped(site[1][mode], party))
    messages, sent = wire_bytes.take_apart(pieces, cipher=facts.cipher, key_log=log.read_text())
    assert [message.kind for message in messages] == kinds
    assert sent == {"client": facts.bytes_out, "server": facts.bytes_in}
    byte_by_byte = [(sender, bytes([byte])) for sender, data in pieces for byte in data]
    assert wire_bytes.take_apart(byte_by_byte, cipher=facts.cipher, key_log=log.read_text()) == (messages, sent)


def test_the_secrets_of_another_link_decrypt_nothing(site: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    logs = tmp_path / "one", tmp_path / "other"
    parties = [stacks.client(MODES["hybrid"], credentials(site[0], "forwarder"), key_log=log) for log in logs]
    (facts, pieces), _ = [uvloop.run(tapped(site[1]["hybrid"], party)) for party in parties]
    with pytest.raises(InvalidTag):
        wire_bytes.take_apart(pieces, cipher=facts.cipher, key_log=logs[1].read_text())


def test_the_cpu_clock_of_a_process_agrees_with_its_own() -> None:
    before = time.process_time()
    seen = cpu_seconds(os.getpid())
    assert before <= seen <= time.process_time()


def test_percentiles_are_of_all_rounds_and_their_intervals_know_how_rounds_differ() -> None:
    assert pooled([[1.0, 2.0, 3.0]] * 5, 0.5) == {"value": 2.0, "low": 2.0, "high": 2.0}
    found = pooled([[1.0] * 3, [2.0] * 3, [9.0] * 3], 0.5)
    assert (found["low"], found["value"], found["high"]) == (1.0, 2.0, 9.0)


def test_one_round_trip_less_shows_over_a_long_distance(tmp_path: Path) -> None:
    picture = tmp_path / "handshakes.png"
    options = ["--rtt", "0,20", "--modes", "classical-tls12,hybrid", "--rounds", "5", "--handshakes", "1", "--json"]
    result = CliRunner().invoke(handshakes, [*options, "--png", str(picture)], catch_exceptions=False)
    shown = json.loads(result.stdout)
    medians = {(row["rtt_ms"], row["mode"]): row["handshake_p50_ms"]["value"] for row in shown["rows"]}
    assert medians[20, "classical-tls12"] >= 40
    assert medians[20, "hybrid"] >= 20
    assert all(row["client_cpu_ms"]["value"] > 0 < row["server_cpu_ms"]["value"] for row in shown["rows"])
    far = next(row for row in shown["ratios"] if row["rtt_ms"] == 20)
    assert far["handshake"]["value"] < 0.9
    assert far["pair"] == "hybrid / classical-tls12"
    assert [row["mode"] for row in shown["wire"]] == ["classical-tls12", "hybrid"]
    assert [(row["bytes"], row["measured"]) for row in shown["published"]] == [
        (1376, 1372),
        (11452, 11452),
        (9288, 9288),
    ]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_picture_that_cannot_be_drawn_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = CliRunner().invoke(handshakes, ["--png", str(tmp_path / "p.png")])
    assert result.exit_code == 1
    assert "`pip install matplotlib`" in result.output


@pytest.mark.parametrize("option", [("--modes", "hybrid,quantum"), ("--rtt", "soon"), ("--rtt", "-1")])
def test_what_cannot_be_measured_is_refused(option: tuple[str, str]) -> None:
    result = CliRunner().invoke(handshakes, option)
    assert result.exit_code == 2
    assert option[0] in result.output
