"""Operations of key exchanges: every library does them, they agree, and the figures about them are true."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.handshakes.primitives import (
    SENT_BYTES,
    Kem,
    exchanges,
    go_rows,
    interoperate,
    kems,
    operations,
    parse_go,
    primitives,
)

GO_OUTPUT = """\
goos: linux
BenchmarkGo/P-256/derive                 141     36531 ns/op         128 B/op       2 allocs/op
BenchmarkGo/P-256/derive                 140     36400 ns/op         128 B/op       2 allocs/op
BenchmarkGo/ML-KEM-768/encaps            160     32462.5 ns/op      1216 B/op       2 allocs/op
PASS
"""


@pytest.mark.parametrize("kem", kems(), ids=lambda kem: f"{kem.library} {kem.name}")
def test_sent_values_have_the_stated_sizes_and_both_ends_share_a_secret(kem: Kem) -> None:
    key = kem.generate()
    public = kem.public_bytes(key)
    ciphertext, secret = kem.encaps(kem.load(public))
    assert (len(public), len(ciphertext)) == (SENT_BYTES[kem.name, "keygen"], SENT_BYTES[kem.name, "encaps"])
    assert kem.decaps(key, ciphertext) == secret
    assert len(secret) == 32
    flipped = bytes([ciphertext[0] ^ 1]) + ciphertext[1:]
    assert kem.decaps(key, flipped) != secret


def test_libraries_decapsulate_what_each_other_encapsulates() -> None:
    found = interoperate()
    assert {row["primitive"] for row in found} == {"ML-KEM-768", "ML-KEM-1024"}
    assert len(found) == 4
    assert all(row["agree"] for row in found)


def test_every_operation_has_a_unique_name_and_runs() -> None:
    timed = list(operations())
    assert len({(each.library, each.primitive, each.name) for each in timed}) == len(timed) == 4 + 5 * 3 + 3 * 2
    for each in timed:
        each.run()


def test_the_command_times_all_operations_and_works_without_go(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    result = CliRunner().invoke(primitives, ["--rounds", "2", "--json"], catch_exceptions=False)
    shown = json.loads(result.stdout)
    assert len(shown["rows"]) == 25
    assert all(row["ns"]["low"] <= row["ns"]["value"] <= row["ns"]["high"] for row in shown["rows"])
    assert [row["ns"]["value"] for row in shown["of_2022"]] == [52204, 11793]
    assert {row["group"] for row in shown["exchanges"]} == {"P-256", "X25519", "X25519MLKEM768"}


def test_go_is_measured_if_it_is_installed(tmp_path: Path) -> None:
    rows = go_rows(tmp_path, 1)
    assert len(rows) in ({0, 10} if shutil.which("go") else {0})  # none by a Go that is older than ML-KEM
    assert all(row["ns"]["value"] > 0 and row["allocations"] >= 0 for row in rows)


def test_the_output_of_go_becomes_one_row_per_operation() -> None:
    curve, kem = parse_go(GO_OUTPUT, "Go 1.26")
    assert (curve["primitive"], curve["operation"], curve["allocated_bytes"], curve["allocations"]) == (
        "P-256",
        "derive",
        128,
        2,
    )
    assert curve["ns"]["value"] == 36465.5
    assert (kem["ns"]["value"], kem["sent_bytes"]) == (32462.5, 1088)


def test_a_groups_exchange_is_made_of_every_operation_of_both_ends() -> None:
    costs = {"X25519": {"keygen": 1, "derive": 10}, "ML-KEM-768": {"keygen": 100, "encaps": 1000, "decaps": 10000}}
    rows = [
        {"library": "a", "primitive": primitive, "operation": operation, "ns": {"value": ns}}
        for primitive, operations in costs.items()
        for operation, ns in operations.items()
    ]
    assert {row["group"]: row["ns"] for row in exchanges(rows)} == {"X25519": 22, "X25519MLKEM768": 11122}
