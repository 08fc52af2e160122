"""curl with bodies of every form, as far as Kafka: what is answered 200 is there once, with its content, in order."""

from __future__ import annotations

import gzip
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bench.lab.generate import generate_http
from bench.lab.kafka import Kafka
from bench.lab.site import Site
from tests.support.to_kafka import records, start

pytestmark = pytest.mark.kafka
RECORDS = 2_000


class Form(NamedTuple):
    """A body, its headers, and the records that it is."""

    body: bytes
    content_type: str
    records: list[dict[str, Any]]
    headers: tuple[str, ...] = ()
    times: int = 1


def forms() -> Iterator[Form]:
    generated = list(generate_http(RECORDS, seed=15))
    parsed = [json.loads(line) for line in generated]
    ndjson = b"".join(line + b"\n" for line in generated)
    text = [f'line {number} "café"' for number in range(RECORDS)]
    yield Form(ndjson, "application/x-ndjson", parsed)
    yield Form(b"[" + b", ".join(generated) + b"]", "application/json", parsed)
    yield Form(b'{"one": "object"}', "application/json", [{"one": "object"}])
    yield Form("\r\n".join(text).encode(), "text/plain", [{"message": line} for line in text])
    latin = "\n".join(text).encode("latin-1")
    yield Form(latin, "text/plain; charset=iso-8859-1", [{"message": line} for line in text])
    yield Form(gzip.compress(ndjson), "application/x-ndjson", parsed, ("Content-Encoding: gzip",))
    yield Form(ndjson, "application/x-ndjson", parsed, ("Transfer-Encoding: chunked",))
    yield Form(ndjson, "application/x-ndjson", parsed, ("Idempotency-Key: 15",), times=3)


def post(curl: str, url: str, form: Form) -> Any:
    headers = [part for header in (f"Content-Type: {form.content_type}", *form.headers) for part in ("-H", header)]
    argv = [curl, "--silent", "--show-error", "--fail-with-body", url, *headers, "--data-binary", "@-"]
    return json.loads(subprocess.run(argv, input=form.body, check=True, stdout=subprocess.PIPE, timeout=60).stdout)


def test_bodies_of_every_form_are_in_kafka_as_they_were_sent(
    tmp_path: Path, kafka: Kafka, topic_name: str, curl: str
) -> None:
    sent: list[dict[str, Any]] = []
    with Site(tmp_path) as site:
        start(site, kafka, {topic_name: '[source]\ntype = "http"\naddress = "127.0.0.1:0"\n'})
        address = site.forwarder.wait_for("http listening")[0]["address"]
        for form in forms():
            for _ in range(form.times):
                answer = post(curl, f"http://{address}/ingest/{topic_name}", form)
                assert answer == {"accepted": len(form.records), "invalid": 0}
            sent += form.records
        assert site.wait_until_acknowledged(len(sent), [topic_name], 60), site.forwarder.tail()
        assert site.wait_until_drained([topic_name], 30)
    assert records(kafka, topic_name) == sent
