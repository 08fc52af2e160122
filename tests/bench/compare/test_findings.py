"""Figures from rounds: one verdict in words, lines for the rounds that have them, and the differences of links."""

from __future__ import annotations

import random
from typing import Any

import pytest

from bench.compare import findings
from bench.compare.findings import Round

CLASSICAL = {"group": "X25519", "version": "TLSv1.3", "cipher": "TLS_AES_128_GCM_SHA256"}
HYBRID = {**CLASSICAL, "group": "X25519MLKEM768"}
TLS12 = {"group": "secp256r1", "version": "TLSv1.2", "cipher": "ECDHE-ECDSA-AES128-GCM-SHA256"}


def _rounds(times: float, count: int = 12, **more: Any) -> list[Round]:
    """Rounds in which the second stream takes `times` times as long, on a machine that is slow now and then."""
    drawn = random.Random(7)
    rounds: list[Round] = []
    for _ in range(count):
        slow = drawn.choice([1.0, 1.0, 3.0])
        values = [[slow * each * drawn.uniform(0.95, 1.05) for _ in range(50)] for each in (4.0, 4.0 * times)]
        rounds.append({"http": {"batch_ms": values[0], **more}, "pq-stream": {"batch_ms": values[1], **more}})
    return rounds


@pytest.mark.parametrize(
    ("times", "count", "words"),
    [
        (1.0, 12, "no difference shown: pq-stream / http = "),
        (1.3, 12, "pq-stream is 1.3"),
        (0.7, 12, "pq-stream is 0.7"),
        (1.3, 5, "no difference shown: 5 rounds are too few"),
    ],
)
def test_the_verdict_judges_the_median_batch_duration_in_words(times: float, count: int, words: str) -> None:
    verdict = findings.judge(_rounds(times, count), "http", "pq-stream", seed=1)
    assert verdict.words.startswith(words), verdict.words
    assert verdict.metric == "batch duration, median"
    assert verdict.ratio.low < verdict.ratio.value < verdict.ratio.high


def test_a_line_uses_the_rounds_that_have_both_figures() -> None:
    speed = {"cpu_seconds_per_gb": {"forwarder": 9.0, "receiver": 0.0}, "megabytes_per_second": 80.0}
    rounds: list[Round] = [*_rounds(1.0, 8, speed=speed), {"http": {"batch_ms": [4.0]}, "pq-stream": {"batch_ms": []}}]
    found = {line.metric: line for line in findings.lines(rounds, "http", "pq-stream", seed=1)}
    assert {line.rounds for line in found.values()} == {8}
    assert set(found) == {
        *(f"batch duration, {name}" for name in ("median", "mean", "p95", "p99")),
        "forwarder",
        "receiver",
        "full speed",
    }
    assert [line.metric for line in found.values() if line.primary] == ["batch duration, median"]
    assert found["forwarder"].base.value == found["forwarder"].other.value == 9.0
    assert found["receiver"].ratio.value == pytest.approx(1.0)
    assert found["batch duration, median"].base.value < found["batch duration, p99"].base.value


@pytest.mark.parametrize(
    ("base", "other", "words"),
    [
        (CLASSICAL, CLASSICAL, "TLS negotiated the same for both"),
        (CLASSICAL, HYBRID, "they differ only in the key-exchange group (X25519 → X25519MLKEM768)"),
        (TLS12, HYBRID, "they differ in key-exchange group (secp256r1 → X25519MLKEM768), TLS version (TLSv1.2 → "),
        ({}, HYBRID, "they differ in key-exchange group (no link → X25519MLKEM768), TLS version (no link → "),
    ],
)
def test_the_differences_of_two_links_are_named(base: dict[str, str], other: dict[str, str], words: str) -> None:
    assert findings.differences(base, other).startswith(words)
