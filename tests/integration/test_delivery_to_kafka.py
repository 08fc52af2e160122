"""Real records into a real Kafka, read back by a consumer no one here wrote."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bench.chaos.steppedclock import SteppedClock
from bench.lab.generate import generate_http
from bench.lab.kafka import Kafka
from bench.lab.oracle import read_topic
from bench.lab.site import Site

REAL_RECORDS = Path(__file__).parents[3] / "shared" / "data" / "http_access.jsonl"


def deliver(directory: Path, kafka: Kafka, prefix: str, source: Path, records: int) -> dict[str, list[bytes]]:
    names = [f"{prefix}-http", f"{prefix}-pq"]
    with Site(directory) as site:
        site.make_pki()
        site.write_receiver(
            f'type = "kafka"\nbrokers = ["{kafka.bootstrap}"]\ncreate_topics = true',
            listeners={"localhost:0": '["hybrid", "classical"]'},
        )
        site.write_forwarder(site.start_receiver())
        shutil.copy(source, site.directory / "in.log")
        site.write_stream(names[0], 'security = "classical"\n[source]\ntype = "file"\npaths = ["in.log"]\n')
        site.write_stream(names[1], f'security = "hybrid"\nmirror_of = "{names[0]}"\n')
        site.start_forwarder()
        assert site.wait_until_acknowledged(records, names, seconds=60), site.forwarder.tail()
        groups = {name: row["link"]["group"] for name, row in site.streams().items()}
        assert groups == {names[0]: "X25519", names[1]: "X25519MLKEM768"}
        assert site.forwarder.stop() == 0
        assert site.receiver.stop() == 0
    return {name: list(read_topic(kafka.bootstrap, name)) for name in names}


@pytest.mark.kafka
def test_the_real_records_are_in_both_topics_byte_for_byte_in_order(tmp_path: Path, kafka: Kafka) -> None:
    if not REAL_RECORDS.exists():
        pytest.skip(f"real records are not here: put a file of JSON lines at {REAL_RECORDS.name} in ../shared/data")
    lines = REAL_RECORDS.read_bytes().splitlines()
    stored = deliver(tmp_path, kafka, "real", REAL_RECORDS, len(lines))
    assert len(lines) == 9_999
    assert all(values == lines for values in stored.values())


@pytest.mark.kafka
def test_generated_records_are_in_both_topics_byte_for_byte_in_order(tmp_path: Path, kafka: Kafka) -> None:
    lines = list(generate_http(30_000, seed=2))
    source = tmp_path / "generated.jsonl"
    source.write_bytes(b"".join(line + b"\n" for line in lines))
    stored = deliver(tmp_path / "site", kafka, "generated", source, len(lines))
    assert all(values == lines for values in stored.values())


@pytest.mark.kafka
@pytest.mark.parametrize("hours", [-3, 3])
def test_a_forwarders_clock_may_be_set_while_its_link_is_open(tmp_path: Path, kafka: Kafka, hours: int) -> None:
    """Kafka refuses what is stamped over an hour ahead; a link lasts longer than a clock can be trusted."""
    name, lines = f"clock-{hours}", list(generate_http(2_000, seed=3))
    clock = SteppedClock(tmp_path / "clock")
    with Site(tmp_path / "site") as site:
        site.make_pki()
        site.write_receiver(
            f'type = "kafka"\nbrokers = ["{kafka.bootstrap}"]\ncreate_topics = true',
            listeners={"localhost:0": '["hybrid"]'},
        )
        site.write_forwarder(site.start_receiver())
        site.write_stream(name, '[source]\ntype = "file"\npaths = ["in.log"]\n')
        site.forwarder.argv[:1] = clock.argv
        site.start_forwarder()
        for step, half in enumerate((lines[:1_000], lines[1_000:]), 1):
            with (site.directory / "in.log").open("ab") as out:
                out.write(b"".join(line + b"\n" for line in half))
            assert site.wait_until_acknowledged(step * 1_000, [name], seconds=30), site.forwarder.tail()
            clock.set(hours * 3600.0)
        assert not [event for event in site.forwarder.events() if event.get("event") == "batch refused"]
    assert list(read_topic(kafka.bootstrap, name)) == lines
