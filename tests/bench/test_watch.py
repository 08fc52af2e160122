"""The result of two looks of `logbench watch` at an admin address."""

from __future__ import annotations

import subprocess
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from bench.lab.site import command
from bench.watch import Look, render, sheet


def _row(
    name: str, *, twin_of: str | None = None, acknowledged: int = 0, median: float | None = 0.004
) -> dict[str, Any]:
    summary = {"count": acknowledged // 10, "median": median, "p95": median, "p99": median}
    return {
        "stream": name,
        "twin_of": twin_of,
        "mode": "hybrid" if twin_of else "classical",
        "state": "connected",
        "link": {"receiver": "a:1", "group": "X25519", "version": "TLSv1.3", "cipher": "c", "age_seconds": 3.0},
        "records": {"accepted": 0, "invalid": 0, "acknowledged": acknowledged, "dropped": 0, "dead_lettered": 2},
        "unacknowledged_batches": 3,
        "spool": {"batches": 4, "records": 40, "bytes": 2_000_000, "oldest_seconds": 7.0},
        "faults": {"link_failures": {"timeout": 1, "policy": 2}, "resets": {}},
        "source_lag_bytes": 500_000,
        "handshake_seconds": {"count": 1, "median": 0.001, "p95": 0.001, "p99": 0.001},
        "batch_duration_seconds": summary,
    }


def _text(look: Look, entries: list[dict[str, Any]]) -> str:
    out = StringIO()
    Console(file=out, width=140).print(render("admin:1", look, entries))
    return out.getvalue()


def test_a_twin_follows_its_original_with_the_ratio_and_rates_come_from_two_looks() -> None:
    before = Look(10.0, [_row("http", acknowledged=100), _row("a-twin", twin_of="http"), _row("zebra")])
    rows = [
        _row("zebra"),
        _row("a-twin", twin_of="http", acknowledged=50, median=0.005),
        _row("http", acknowledged=300),
    ]
    after = Look(12.0, rows)
    entries = sheet(before, after)
    assert [entry["stream"] for entry in entries] == ["http", "a-twin", "zebra"]
    assert [entry["records_per_second"] for entry in entries] == [100.0, 25.0, 0.0]
    assert entries[1]["ratios"]["batch_median_ms"] == pytest.approx(1.25)
    assert entries[0]["ratios"] == entries[2]["ratios"] == {}
    text = _text(after, entries)
    for part in ("1.250", "5.00 ms", "2.0 MB", "2 dead lettered, 3 link failures", "7.0 s"):
        assert part in text


def test_a_stream_without_link_or_batches_is_shown_with_dashes() -> None:
    row = {**_row("http", median=None), "link": None, "state": "disconnected"}
    entries = sheet(Look(1.0, []), Look(2.0, [row]))
    assert entries[0]["records_per_second"] is None
    assert "disconnected" in _text(Look(2.0, [row]), entries)


def test_the_streams_of_a_receiver_are_shown_and_trouble_is_reported_in_words() -> None:
    row = {
        "stream": "http",
        "twin_of": None,
        "modes": ["hybrid"],
        "links_by_group": {"X25519MLKEM768": 2},
        "records": {"stored": 1200, "duplicate": 0},
        "sink_seconds": {"median": 0.0042},
        "handshake_seconds": {"median": None},
    }
    look = Look(1.0, [row])
    text = _text(look, sheet(look, look))
    for part in ("2 X25519MLKEM768", "1,200 stored", "4.20 ms"):
        assert part in text
    assert _text(Look(1.0, [], "no answer"), []) == "no answer\n"
    assert "no streams yet" in _text(Look(1.0, []), [])


def test_in_a_pipe_each_look_is_printed_at_once() -> None:
    words = ["timeout", "30", command("logbench"), "watch", "--admin", "127.0.0.1:1", "--every", "0.2"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            seen = [process.stdout.readline() for _ in range(4)]  # two lines each
        finally:
            process.kill()
    assert ["127.0.0.1:1 does not answer: Connection refused" in line for line in seen] == [True, False] * 2, seen
