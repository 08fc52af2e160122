"""What happens to a receiver while a reload is under way, and what its answer may be relied on for."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from logfwd.forwarder import Forwarder
from logreceiver import oversight, service
from logreceiver.config import Deny, Ledger
from logreceiver.links.grants import Grants
from streams import tasks, watching
from tests.integration.test_reload import fleet
from tests.support.installation import Events, Installation, acknowledged, eventually, found, lines, running


class Disk:
    """Where the grant keys are; it does not answer until it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers, self.asked, self._load = threading.Event(), threading.Event(), Grants.load
        monkeypatch.setattr(Grants, "load", self._read)

    def _read(self, path: Path) -> Grants:
        self.asked.set()
        assert self.answers.wait(60)
        return self._load(path)


async def test_a_disk_that_does_not_answer_holds_up_a_reload_and_no_link(
    installation: Installation, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = installation.receiver_config()
    async with (
        running(config) as receiver,
        Forwarder(installation.forwarder_config(receiver.listeners[0].address)) as forwarder,
    ):
        monkeypatch.setattr("logreceiver.reloading._load", lambda load, _: load())  # which reads them, too
        disk = Disk(monkeypatch)
        reload = asyncio.create_task(receiver.reload(lambda: config))
        await eventually(disk.asked.is_set)
        installation.parties.leaf("receiver", identities=["renewed"], hosts=["localhost"], force=True)
        certificates = asyncio.create_task(receiver.reload_certificates())
        installation.append(*lines(10))
        await eventually(lambda: acknowledged(forwarder) == 10)
        assert not reload.done()
        assert not found(events, "certificate reloaded"), "one at a time"
        disk.answers.set()
        assert (await reload).outcome == "taken"
        await certificates
    assert len(found(events, "certificate reloaded")) == 2


async def test_a_receiver_that_stops_takes_no_reload_that_is_under_way(
    installation: Installation, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = installation.receiver_config()
    async with running(config) as receiver:
        disk = Disk(monkeypatch)
        reload = asyncio.create_task(receiver.reload(lambda: replace(config, deny=(Deny(identity="*"),))))
        await eventually(disk.asked.is_set)
    disk.answers.set()
    assert ((await reload).outcome, (await reload).reason) == ("refused", "the receiver is stopping")
    assert receiver.config == config


async def test_nothing_is_stored_of_who_is_shut_out_once_the_answer_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fleet(tmp_path) as (hosts, config):
        sink, slow = hosts.service._shared.sink, asyncio.Event()
        produce = sink.produce

        async def produce_slowly(*batch: Any) -> Any:
            slow.set()
            await asyncio.sleep(0.3)
            return await produce(*batch)

        monkeypatch.setattr(sink, "produce", produce_slowly)
        hosts.write("b")
        await slow.wait()
        hosts.write("b")
        report = await hosts.reload(replace(config, deny=(Deny(identity="spiffe://test/b"),)))
        assert (report.outcome, report.ends) == ("taken", 1)
        stored = hosts.installation.stored("b")
        await asyncio.sleep(0.7)
        assert hosts.installation.stored("b") == stored


async def test_a_stream_whose_topic_becomes_the_ledgers_is_written_no_more(tmp_path: Path, events: Events) -> None:
    async with fleet(tmp_path) as (hosts, config):
        assert (await hosts.reload(replace(config, ledger=Ledger(topic="b")))).ends == 1
        await eventually(lambda: "b" not in hosts.ages())
        await eventually(lambda: found(events, "link failed"))
        assert "only receivers may write the ledger's topic" in found(events, "link failed")[-1]["detail"]


@pytest.mark.parametrize(
    ("task", "part"),
    [
        ("oversight", "logreceiver.oversight.datetime"),
        ("certificates", "logreceiver.reloading.stamps_of"),
        ("watch", "streams.watching.stamps_of"),
    ],
)
async def test_a_task_that_dies_is_said_and_begins_again(
    installation: Installation, events: Events, monkeypatch: pytest.MonkeyPatch, task: str, part: str
) -> None:
    for each, name in ((oversight, "LOOK_SECONDS"), (watching, "LOOK_SECONDS"), (service, "CERTIFICATE_CHECK_SECONDS")):
        monkeypatch.setattr(each, name, 0.01)
    monkeypatch.setattr(tasks, "AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(tasks, "_troubles", {})  # those of the process: other tests look at them, too
    monkeypatch.setattr(tasks, "_failures", Counter())
    async with running(installation.receiver_config()) as receiver, watching.watching(list, lambda: None):
        with monkeypatch.context() as broken:
            broken.setattr(part, None)
            await eventually(lambda: found(events, "task failed"))
            assert receiver._degraded()[f"task {task}"].startswith(("TypeError", "AttributeError"))
        before = len(found(events, "task failed"))
        receiver.metrics.prepare()
        assert (receiver.registry.get_sample_value("task_failures_total", {"task": task}) or 0) >= 1
        await asyncio.sleep(0.1)
        assert {event["task"] for event in found(events, "task failed")} == {task}
        assert len(found(events, "task failed")) <= before + 1, "it runs again"
        assert task in {each.get_name() for each in asyncio.all_tasks()}
