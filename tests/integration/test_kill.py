"""kill -9 of forwarder, receiver and Kafka in the middle of 100 000 records: nothing lost, nothing twice."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from bench.lab.generate import generate_http
from bench.lab.kafka import Kafka
from bench.lab.oracle import read_topic
from bench.lab.site import Site
from tests.support.kafka import UP_SOONER

RECORDS = 100_000
STREAMS = ["http", "pq-stream"]


def feed(path: Path, records: list[bytes], seconds: float) -> None:
    """Append the records at an even pace, as a busy server would."""
    steps = 100
    step = len(records) // steps
    with path.open("ab") as out:
        for start in range(0, len(records), step):
            out.write(b"".join(record + b"\n" for record in records[start : start + step]))
            out.flush()
            time.sleep(seconds / steps)


@pytest.mark.kafka
def test_kill_9_of_each_part_in_turn_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    records = list(generate_http(RECORDS, seed=6))
    with Kafka(tmp_path / "kafka", jvm_options=UP_SOONER) as kafka, Site(tmp_path / "site") as site:
        site.make_pki()
        sink = f'type = "kafka"\nbrokers = ["{kafka.bootstrap}"]\ncreate_topics = true'
        site.write_receiver(sink, listeners={"localhost:0": '["hybrid", "classical"]'})
        (address,) = site.start_receiver()
        site.write_receiver(sink, listeners={address: '["hybrid", "classical"]'})  # the same port after a restart
        site.write_forwarder([address])
        site.write_stream("http", 'security = "classical"\n[source]\ntype = "file"\npaths = ["http.log"]\n')
        site.write_stream("pq-stream", 'security = "hybrid"\nmirror_of = "http"\n')
        log = site.directory / "http.log"
        log.touch()
        site.start_forwarder()
        feeder = threading.Thread(target=feed, args=(log, records, 6.0))
        feeder.start()
        time.sleep(1)
        site.forwarder.kill()
        site.start_forwarder()
        time.sleep(1)
        site.receiver.kill()
        site.start_receiver()
        time.sleep(1)
        kafka.kill()
        kafka.restart()
        feeder.join()
        assert site.wait_until_drained(STREAMS, seconds=90), site.streams()
        resets = {name: row["resets"] for name, row in site.streams().items()}
        site.stop()
        stored = {name: list(read_topic(kafka.bootstrap, name)) for name in STREAMS}
    assert resets == dict.fromkeys(STREAMS, 0)
    for name in STREAMS:
        assert len(stored[name]) == RECORDS, name
        assert stored[name] == records, name
