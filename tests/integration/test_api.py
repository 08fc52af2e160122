"""/api/v1/streams of both programs: docs/api.md describes every field, and a request is cheap."""

from __future__ import annotations

import re
import statistics
import time
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import msgspec

from logfwd.config import Admin as ForwarderAdmin
from logfwd.sources.settings import FileSource
from logreceiver.config import Admin as ReceiverAdmin
from streams.telemetry.window import WINDOW
from tests.support.installation import Installation, acknowledged, eventually, forwarding, lines, running

DOCS = Path(__file__).parents[2] / "docs" / "api.md"
REQUESTS = 30
NEW_VALUES = 100


def documented(section: str) -> set[str]:
    """The fields of a section's table."""
    parts = re.split(r"^## ", DOCS.read_text(), flags=re.MULTILINE)
    (part,) = [part for part in parts if part.startswith(f"{section}\n")]
    return set(re.findall(r"^\| `([^`]+)` \|", part, flags=re.MULTILINE))


def fields(value: Any, path: str = "") -> set[str]:
    """Every path in an answer; an array counts as its first element."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return {path} | fields(value[0], f"{path}[]")
    if not isinstance(value, dict):
        return {path}
    inner = [fields(each, f"{path}.{name}" if path else name) for name, each in value.items()]
    return set().union(*inner) | ({path} if path else set())


def undocumented(answer: Any, known: set[str]) -> set[str]:
    """Paths that are not in the docs, nor lead to a path that is, nor are inside one that is described as a whole."""
    whole = {path for path in known if not any(other.startswith((f"{path}.", f"{path}[")) for other in known)}
    within = tuple(f"{path}{mark}" for path in whole for mark in (".", "["))
    return {
        path
        for path in fields(answer)
        if path not in known and not path.startswith(within) and not any(k.startswith(f"{path}.") for k in known)
    }


async def get(client: aiohttp.ClientSession, address: str) -> Any:
    async with client.get(f"http://{address}/api/v1/streams") as answer:
        return await answer.json()


async def test_docs_describe_every_field_of_both_programs_and_no_other(installation: Installation) -> None:
    receiver = msgspec.structs.replace(installation.receiver_config(), admin=ReceiverAdmin(address="127.0.0.1:0"))
    async with running(receiver) as service, aiohttp.ClientSession() as client:
        config = installation.forwarder_config(service.listeners[0].address)
        config = msgspec.structs.replace(config, admin=ForwarderAdmin(address="127.0.0.1:0"))
        async with forwarding(config) as forwarder:
            installation.append(*lines(5))
            await eventually(lambda: acknowledged(forwarder) == 5)
            answers = {
                "logfwd": await get(client, forwarder.admin_address),
                "logreceiver": await get(client, service.admin_address),
            }
    for program, answer in answers.items():
        (row,) = answer.pop("streams")
        durations = [value for name, value in row.items() if name.endswith("_seconds") and isinstance(value, dict)]
        assert answer["program"] == program
        assert answer["config"]["last_reload"] is None, "a start is no reload"
        assert 0 <= answer["now"] - answer["started"] < 60
        lacking = {"sink"} if program == "logfwd" else set()
        assert set(answer) | {"streams"} == documented("The answer") - lacking
        assert [set(duration) for duration in durations] == [documented("Durations")] * 2
        known = documented(f"Each stream of {program}")
        assert undocumented(row, known) == set()
        assert known - fields(row) == set()


async def test_the_files_of_a_stream_are_told_with_what_is_unread_and_of_many_only_some(
    installation: Installation,
) -> None:
    for number in range(25):
        (installation.directory / f"many-{number:02}.log").write_text('{"n": 1}\n' * (number + 1) + '{"half": ')
    source = FileSource(paths=(str(installation.directory / "many-*.log"),), scan_seconds=0.05)
    async with running(installation.receiver_config()) as service, aiohttp.ClientSession() as client:
        streams = [installation.stream(source=source), installation.stream(name="pq", mirror_of="http", source=None)]
        config = installation.forwarder_config(service.listeners[0].address, *streams)
        config = msgspec.structs.replace(config, admin=ForwarderAdmin(address="127.0.0.1:0"))
        async with forwarding(config) as forwarder:
            await eventually(lambda: acknowledged(forwarder) == sum(range(26)))
            with (installation.directory / "many-03.log").open("a") as out:
                out.write("x" * 100)
            await eventually(lambda: forwarder.describe()[0]["source_lag_bytes"] > 25 * 9)
            url = f"http://{forwarder.admin_address}/api/v1/streams/{{}}/source"
            answers = [await (await client.get(url.format(name))).json() for name in ("http", "pq")]
            assert (await client.get(url.format("another"))).status == 404
    answer = answers[0]
    assert answer == answers[1], "a twin reads its original's source"
    assert (answer["type"], len(answer["files"]), answer["more_files"]) == ("file", 20, 5)
    path = str(installation.directory / "many-03.log")
    assert answer["files"][0] == {"path": path, "size_bytes": 4 * 9 + 109, "offset": 4 * 9, "unread_bytes": 109}
    assert undocumented(answer, documented("What a stream reads")) == set()
    assert documented("What a stream reads") - fields(answer) == set()


async def test_what_the_receiver_said_at_its_welcome_and_when_certificates_expire_is_told(
    installation: Installation,
) -> None:
    receiver = msgspec.structs.replace(installation.receiver_config(), admin=ReceiverAdmin(address="127.0.0.1:0"))
    async with running(receiver) as service, aiohttp.ClientSession() as client:
        address = service.listeners[0].address
        config = installation.forwarder_config(address)
        config = msgspec.structs.replace(config, admin=ForwarderAdmin(address="127.0.0.1:0"))
        async with forwarding(config) as forwarder:
            await eventually(lambda: [row["state"] for row in forwarder.describe()] == ["connected"])
            at_forwarder = await get(client, forwarder.admin_address)
            at_receiver = await get(client, service.admin_address)
    (here,), (there,) = at_forwarder["streams"], at_receiver["streams"]
    assert here["topic"] == there["newest_links"][0]["topic"] == "http"
    ((own,), (door,)) = at_forwarder["certificates"], at_receiver["certificates"]
    assert (own["section"], own["owner"]) == ("tls", "own")
    assert (door["section"], door["owner"]) == ("localhost:0", "own")
    assert own["expires"] == there["newest_links"][0]["certificate_expires"]
    assert door["expires"] == here["link"]["certificate_expires"]


async def test_a_viewer_that_asks_each_second_costs_less_than_half_of_one_for_whom_all_values_are_new(
    installation: Installation,
) -> None:
    async with running(installation.receiver_config()) as service, aiohttp.ClientSession() as client:
        streams = [installation.stream(), installation.stream(name="pq", mirror_of="http", source=None)]
        config = installation.forwarder_config(service.listeners[0].address, *streams)
        config = msgspec.structs.replace(config, admin=ForwarderAdmin(address="127.0.0.1:0"))
        async with forwarding(config) as forwarder:
            chance = Random(1)

            async def cost(new_values: int) -> float:
                """CPU seconds of a request after so many new values of each stream, the client's included."""
                for stream in streams:
                    durations = forwarder.metrics.batch_duration.labels(stream.name, stream.security)
                    for _ in range(new_values):
                        durations.observe(chance.lognormvariate(-5, 1))
                began = time.process_time()
                await get(client, forwarder.admin_address)
                return time.process_time() - began

            await eventually(lambda: all(row["state"] == "connected" for row in forwarder.describe()))
            await cost(WINDOW)
            costs = [(await cost(NEW_VALUES), await cost(WINDOW)) for _ in range(REQUESTS)]
    asking, sorting = (statistics.median(seconds) for seconds in zip(*costs, strict=True))
    print(f"{asking * 1e3:.2f} ms of CPU a request with {NEW_VALUES} new values a stream, {sorting * 1e3:.2f} with all")
    assert asking < sorting / 2
