"""`logbench kafka` and `logbench records`, as processes."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from bench.lab.kafka import free_ports

LOGBENCH = Path(sys.executable).parent / "logbench"


@pytest.mark.kafka
async def test_a_kafka_runs_until_it_is_stopped_and_its_records_are_printed() -> None:
    (port,) = free_ports(1)
    address = f"localhost:{port}"
    with subprocess.Popen([LOGBENCH, "kafka", "--port", str(port)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"Kafka on {address}; end it with Ctrl-C\n"
        admin = AIOKafkaAdminClient(bootstrap_servers=address)
        await admin.start()
        await admin.create_topics([NewTopic("app", 1, 1)])
        await admin.close()
        async with AIOKafkaProducer(bootstrap_servers=address) as producer:
            for value in (b'{"n":1}', b'{"n":2}'):
                await producer.send_and_wait("app", value)
        printed = subprocess.check_output([LOGBENCH, "records", "app", "--brokers", address], text=True, timeout=120)
        assert printed == '{"n":1}\n{"n":2}\n'
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
