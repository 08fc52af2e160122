"""Constant fields and those of a file's name, from the file to the sink, across a restart."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import msgspec
import pytest

from logfwd.definition import BatchLimits
from logfwd.forwarder import Forwarder
from logfwd.sources.settings import FileSource
from tests.support.installation import Installation, acknowledged, eventually, forwarding, running


def all_acknowledged(forwarder: Forwarder, records: int) -> bool:
    return acknowledged(forwarder) == records


async def test_records_of_pods_carry_their_host_their_file_and_their_pod(tmp_path: Path) -> None:
    installation = Installation(tmp_path)
    logs = {n: tmp_path / "pods" / f"default_web-{n}_uid-{n}" / "app" / "0.log" for n in range(3)}
    for path in logs.values():
        path.parent.mkdir(parents=True)
    pattern = str(tmp_path / "pods" / "*" / "*" / "*.log")
    source = FileSource(paths=(pattern,), scan_seconds=0.05, path_field="file", kubernetes=True)
    stream = installation.stream(source=source, add={"host": "node-1"})
    async with running(installation.receiver_config()) as service:
        config = installation.forwarder_config(service.listeners[0].address, stream)
        for part in range(2):
            for n, path in logs.items():
                with path.open("a") as out:
                    out.write(f'{{"n":{n}}}\n{{}}\nplain {n}\n')
            async with forwarding(config) as forwarder:
                await eventually(partial(all_acknowledged, forwarder, 9 * (part + 1)))
    expected = []
    for n, path in 2 * list(logs.items()):
        pod = {"namespace": "default", "pod": f"web-{n}", "uid": f"uid-{n}", "container": "app"}
        fields = {"host": "node-1", "file": str(path), "kubernetes": pod}
        expected += [fields | own for own in ({"n": n}, {}, {"message": f"plain {n}", "invalid": True})]
    stored = [json.loads(line) for line in installation.stored()]
    assert sorted(stored, key=str) == sorted(expected, key=str)
    assert list(stored[0])[:3] == ["host", "file", "kubernetes"]


async def test_changed_fields_are_used_after_a_reload(tmp_path: Path) -> None:
    installation = Installation(tmp_path)
    async with running(installation.receiver_config()) as service:
        before = installation.forwarder_config(
            service.listeners[0].address, installation.stream(add={"version": 1}, headers={"a": "b"})
        )
        async with forwarding(before) as forwarder:
            installation.append('{"n":1}')
            await eventually(lambda: acknowledged(forwarder) == 1)
            after = msgspec.structs.replace(before, streams=(installation.stream(add={"version": 2}),))
            await forwarder.reload(lambda: after)
            installation.append('{"n":2}')
            await eventually(lambda: acknowledged(forwarder) == 2)
    assert installation.stored() == ['{"version":1,"n":1}', '{"version":2,"n":2}']


@pytest.mark.parametrize("path_field", [None, "file"])
async def test_parts_of_a_long_line_of_text_are_within_the_limit_with_their_fields(
    tmp_path: Path, path_field: str | None
) -> None:
    installation = Installation(tmp_path)
    source = FileSource(paths=(str(installation.source),), scan_seconds=0.05, format="text", path_field=path_field)
    limits = BatchLimits(max_record_bytes=80_000, linger_seconds=0.02)
    stream = installation.stream(source=source, add={"host": "h" * 1000}, batch=limits)
    line = "".join(f"{n:09} " for n in range(30_000))
    async with (
        running(installation.receiver_config()) as service,
        forwarding(installation.forwarder_config(service.listeners[0].address, stream)) as forwarder,
    ):
        written = [line[:size] for size in range(78_000, 80_200, 100)] + [line, "short"]
        installation.append(*written)
        await eventually(lambda: "".join(installation.stored()).endswith('"short"}'))
        (row,) = forwarder.describe()
    stored = installation.stored()
    assert row["records"]["invalid"] == 0
    assert max(map(len, stored)) <= 80_000
    records = [json.loads(value) for value in stored]
    assert "".join(record["message"] for record in records) == "".join(written)
    assert all(
        record["host"] == "h" * 1000 and record.get("file") == (path_field and str(installation.source))
        for record in records
    )


async def test_container_logs_carry_their_pod_also_where_parts_are_joined(tmp_path: Path) -> None:
    installation = Installation(tmp_path)
    log = tmp_path / "pods" / "default_web-0_uid" / "app" / "0.log"
    log.parent.mkdir(parents=True)
    time = "2026-01-31T10:00:00.000000000Z"
    log.write_text(f'{time} stdout F {{"n":1}}\n{time} stdout P begin \n{time} stderr F other\n{time} stdout F end\n')
    source = FileSource(paths=(str(log),), scan_seconds=0.05, format="cri", kubernetes=True)
    stream = installation.stream(source=source, add={"host": "node-1"}, key_field="host")
    async with (
        running(installation.receiver_config()) as service,
        forwarding(installation.forwarder_config(service.listeners[0].address, stream)) as forwarder,
    ):
        await eventually(lambda: acknowledged(forwarder) == 3)
    pod = {"namespace": "default", "pod": "web-0", "uid": "uid", "container": "app"}
    added = {"host": "node-1", "kubernetes": pod}
    stored = [json.loads(line) for line in installation.stored()]
    assert sorted(stored, key=str) == sorted(
        [
            added | {"n": 1, "time": time, "stream": "stdout"},
            added | {"message": "begin end", "time": time, "stream": "stdout"},
            added | {"message": "other", "time": time, "stream": "stderr"},
        ],
        key=str,
    )
