"""A running forwarder takes a new configuration, or says why not and keeps the last good one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from cryptography.x509 import load_pem_x509_certificate
from msgspec.structs import replace

from bench.lab.site import Site, command
from logfwd.config import ForwarderConfig
from logfwd.forwarder import Forwarder
from logfwd.links import connector
from logreceiver.service import Service
from streams.config.changes import digest
from streams.security import stacks
from tests.support.installation import Events, Installation, acknowledged, eventually, found, lines, running
from tests.support.tls import FORWARDER

NAMES = ("a", "b", "c")


def config_of(installation: Installation, address: str, *names: str) -> ForwarderConfig:
    """A stream for each name, with a file of its own."""
    streams = []
    for name in names:
        stream, source = installation.stream(name=name), installation.directory / f"{name}.log"
        source.touch()
        assert stream.source is not None
        streams.append(replace(stream, source=replace(stream.source, paths=(str(source),))))
    return installation.forwarder_config(address, *streams)


def write(installation: Installation, name: str, *texts: str) -> None:
    with (installation.directory / f"{name}.log").open("a") as out:
        out.write("".join(f"{text}\n" for text in texts))


def info(forwarder: Forwarder, config: ForwarderConfig) -> float | None:
    return forwarder.registry.get_sample_value("logfwd_config_info", {"digest": digest(config)})


async def test_streams_that_are_missing_are_not_removed_until_that_is_confirmed(
    installation: Installation, events: Events
) -> None:
    async with running(installation.receiver_config()) as service:
        config, fewer = (config_of(installation, service.listeners[0].address, *names) for names in (NAMES, ("a",)))
        async with Forwarder(config) as forwarder:
            refused = await forwarder.reload(lambda: fewer)
            assert (refused.outcome, refused.reason) == ("refused", "streams missing: b, c")
            assert f"--confirm {digest(fewer)}" in refused.remedy
            trouble = f"the last reload was refused: streams missing: b, c; {refused.remedy}"
            assert forwarder._reloading.troubles() == {"config": trouble}
            assert forwarder.registry.get_sample_value("logfwd_config_last_reload_successful") == 0
            assert (await forwarder.reload(lambda: fewer, confirm="another")).outcome == "refused"
            for name in NAMES:
                write(installation, name, *lines(10))
                await eventually(lambda name=name: acknowledged(forwarder, name) == 10)  # type: ignore[misc]
            checked = await forwarder.reload(lambda: fewer, check=True, confirm=refused.digest)
            assert (checked.outcome, checked.removed) == ("checked", ("b", "c"))
            assert info(forwarder, config) == 1
            taken = await forwarder.reload(lambda: fewer, confirm=refused.digest)
            assert (taken.outcome, taken.removed) == ("taken", ("b", "c"))
            assert (info(forwarder, config), info(forwarder, fewer)) == (None, 1)
            assert forwarder._reloading.troubles() == {}
            assert forwarder.registry.get_sample_value("logfwd_config_last_reload_successful") == 1
            write(installation, "a", *lines(10, 10))
            await eventually(lambda: acknowledged(forwarder, "a") == 20)
            assert {row["stream"] for row in forwarder.describe()} == {"a"}
    assert {event["stream"] for event in found(events, "stream removed")} == {"b", "c"}


async def test_a_removal_that_is_declared_is_taken_and_the_stream_comes_back_where_it_was(
    installation: Installation, events: Events
) -> None:
    async with running(installation.receiver_config()) as service:
        address = service.listeners[0].address
        config = config_of(installation, address, *NAMES)
        declared = replace(config_of(installation, address, "a", "b"), removed=("c",))
        async with Forwarder(config) as forwarder:
            write(installation, "c", *lines(10))
            await eventually(lambda: acknowledged(forwarder, "c") == 10)
            reserve = installation.directory / "state" / "c.reserve"
            assert reserve.exists()
            assert (await forwarder.reload(lambda: declared)).removed == ("c",)
            assert not reserve.exists()
            assert [event["stream"] for event in found(events, "positions of a removed stream")] == ["c"]
            assert found(events, "spool of a removed stream") == [], "nothing waits that could be sent"
            write(installation, "c", *lines(10, 10))
            assert (await forwarder.reload(lambda: config)).started == ("c",)
            await eventually(lambda: acknowledged(forwarder, "c") == 20)
    assert installation.stored("c") == lines(20)


async def test_what_waits_for_a_removed_stream_is_sent_at_once_and_after_a_restart(
    installation: Installation, events: Events
) -> None:
    away = replace(config_of(installation, "localhost:1", *NAMES), stop_grace_seconds=0.0)
    async with Forwarder(away) as forwarder:
        for name in NAMES:
            write(installation, name, *lines(10))
            await eventually(lambda name=name: waiting(forwarder, name) == 10)  # type: ignore[misc]
        gone = replace(config_of(installation, "localhost:1", "a"), removed=("b", "c"), stop_grace_seconds=0.0)
        assert (await forwarder.reload(lambda: gone)).removed == ("b", "c")
        assert set(forwarder._degraded()) == {"b", "c"}
        await eventually(lambda: waiting(forwarder, "b") == 10)  # its spool is opened again
        back = replace(config_of(installation, "localhost:1", "a", "b"), removed=("c",), stop_grace_seconds=0.0)
        assert (await forwarder.reload(lambda: back)).started == ("b",)
        assert set(forwarder._degraded()) == {"c"}
    async with running(installation.receiver_config()) as service:
        address = service.listeners[0].address
        async with Forwarder(config_of(installation, address, "a", "b")) as forwarder:
            await eventually(lambda: found(events, "removed stream drained"))
            assert forwarder._degraded() == {}
            assert {row["stream"] for row in forwarder.describe()} == {"a", "b"}
            write(installation, "c", *lines(10, 10))
            assert (await forwarder.reload(lambda: config_of(installation, address, *NAMES))).started == ("c",)
            await eventually(lambda: acknowledged(forwarder, "c") == 20)
    for name, count in (("a", 10), ("b", 10), ("c", 20)):
        assert installation.stored(name) == lines(count)
    assert [event["stream"] for event in found(events, "removed stream draining")] == ["b", "c", "c"]


def waiting(forwarder: Forwarder, name: str) -> int:
    return sum(row["spool"]["records"] for row in forwarder.describe() if row["stream"] == name)


async def test_links_move_to_other_receivers_while_their_streams_go_on(
    installation: Installation, events: Events
) -> None:
    away = config_of(installation, "localhost:1", *NAMES)
    async with Forwarder(away) as forwarder:
        for name in NAMES:
            write(installation, name, *lines(10))
        await eventually(lambda: len(found(events, "link failed")) >= 2 * len(NAMES))
        pipelines = [keeper.pipeline for keeper in forwarder._keepers.values()]
        async with running(installation.receiver_config()) as service:
            first = service.listeners[0].address
            second = replace(service.config.listener[0], address="127.0.0.1:0")
            await service.reload(lambda: replace(service.config, listener=(*service.config.listener, second)))
            other = service.listeners[1].address
            for address, end in ((first, 20), (other, 30)):
                taken = await forwarder.reload(lambda address=address: replace(away, receivers=(address,)))  # type: ignore[misc]
                assert (taken.outcome, taken.taken, taken.changed) == ("taken", ("receivers",), ())
                assert taken.relinked == NAMES
                port = address.rpartition(":")[2]
                for name in NAMES:
                    write(installation, name, *lines(10, end - 10))
                    await eventually(lambda name=name, end=end: acknowledged(forwarder, name) == end)  # type: ignore[misc]
                await eventually(lambda port=port: {_port(row) for row in forwarder.describe()} == {port})  # type: ignore[misc]
        assert [keeper.pipeline for keeper in forwarder._keepers.values()] == pipelines, "none was built again"
    for name in NAMES:
        assert installation.stored(name) == lines(30)


def _port(row: dict[str, Any]) -> str:
    return "" if row["link"] is None else str(row["link"]["receiver"]).rpartition(":")[2]


async def test_a_disk_with_certificates_that_does_not_answer_holds_up_new_links_alone(
    installation: Installation, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connector, "FILES_SECONDS", 0.05)
    config = installation.forwarder_config("localhost:1")
    read, answers = stacks.digest_of_files, threading.Event()

    def slow(*files: Any) -> bytes:
        assert answers.wait(60)
        return read(*files)

    async with running(installation.receiver_config()) as service:
        with monkeypatch.context() as disk:
            disk.setattr(stacks, "digest_of_files", slow)
            async with Forwarder(replace(config, receivers=(service.listeners[0].address,))) as forwarder:
                await eventually(lambda: found(events, "link failed"))
                assert "the files of [tls] do not answer" in found(events, "link failed")[0]["detail"]
                installation.append(*lines(10))
                await eventually(lambda: forwarder.describe()[0]["spool"]["records"] == 10)
                answers.set()
                await eventually(lambda: acknowledged(forwarder) == 10)


async def test_certificates_that_cannot_be_used_are_refused_before_a_link_needs_them(
    installation: Installation, events: Events
) -> None:
    config = installation.forwarder_config("localhost:1")
    async with Forwarder(config) as forwarder:
        good = config.tls.certificate
        assert good is not None
        broken = replace(config, tls=replace(config.tls, certificate=installation.source))
        refused = await forwarder.reload(lambda: broken)
        assert (refused.outcome, refused.reason) == ("refused", "invalid")
        assert "tls.certificate: cannot be used" in refused.problems[0]
        assert forwarder.config.tls.certificate == good


async def test_a_forwarder_that_stops_gives_up_a_reload_that_a_disk_holds_up(installation: Installation) -> None:
    config, answers, asked = installation.forwarder_config("localhost:1"), threading.Event(), threading.Event()

    def load() -> ForwarderConfig:
        asked.set()
        assert answers.wait(60)
        return replace(config, receivers=("localhost:2",))

    async with Forwarder(config) as forwarder:
        reload = asyncio.create_task(forwarder.reload(load))
        await eventually(asked.is_set)
    answers.set()
    with pytest.raises(asyncio.CancelledError):
        await reload
    assert forwarder.config == config


def test_a_reload_by_the_command_says_what_came_of_it(tmp_path: Path) -> None:
    with Site(tmp_path / ("a long name of a directory " * 5)) as site:
        site.make_pki()
        site.write_receiver('type = "log"\ndirectory = "log"', listeners={"localhost:0": '["hybrid"]'})
        site.write_forwarder(["localhost:1"])
        for name in ("a", "b"):
            site.write_stream(name, f'[source]\ntype = "file"\npaths = ["{name}.log"]\n')
        site.start_forwarder()
        argv = [command("logfwd"), "reload", "-c", str(site.directory / "logfwd.toml")]

        def reload(*options: str) -> tuple[int, str]:
            done = subprocess.run([*argv, *options], check=False, capture_output=True, text=True)
            return done.returncode, done.stdout + done.stderr

        site.write_stream("c", '[source]\ntype = "file"\npaths = ["c.log"]\n')
        code, output = reload("--check")
        assert (code, output.splitlines()[:2]) == (
            0,
            ["would be taken: no key of logfwd.toml", "streams to be started: c"],
        )
        code, output = reload("--json")
        assert (code, json.loads(output)["started"]) == (0, ["c"])
        streams = site.directory / "streams.d"
        (streams / "a.toml").unlink()
        code, output = reload()
        assert code == 1
        assert output.startswith("streams missing: a\nrefused, and nothing was changed: put them back")
        (streams / "b.toml").write_text("removed = true\n" + (streams / "b.toml").read_text())
        given = output.split()[-1]
        assert reload("--confirm", given)[0] == 1, "that was another configuration"
        given = reload()[1].split()[-1]
        code, output = reload("--confirm", given)
        assert (code, output.splitlines()[1:]) == (0, ["streams removed: a, b", f"configuration: {given}"])
        config = site.directory / "logfwd.toml"
        config.write_text(f"watch = true\n{config.read_text()}")
        assert reload()[1].startswith("taken: watch\n")
        (streams / "d.toml").write_text((streams / "c.toml").read_text().replace('"c', '"d'))
        assert site.forwarder.wait_for("stream started", times=4)[-1]["stream"] == "d", "without being asked for"
        config.write_text(config.read_text().replace("watch = true\n", ""))
        assert reload()[0] == 0
        (streams / "c.toml").write_text("nonsense")
        assert reload()[0] == 78
        os.kill(site.forwarder.pid, signal.SIGHUP)
        site.forwarder.wait_for("config rejected", times=4)
        site.forwarder.stop()
        code, output = reload()
        assert code == 69
        assert "control.sock does not answer: No such file or directory" in output


def since(forwarder: Forwarder) -> dict[str, float]:
    """When each link was made that is in use."""
    rows = forwarder.describe()
    return {row["stream"]: row["link"]["since"] for row in rows if row["state"] == "connected"}


def serials(service: Service) -> set[object]:
    """Of the certificates on a receiver's open links."""
    return {session._link.facts.certificates[0][1] for session in service._live}


async def test_renewed_certificates_are_taken_at_once_over_new_links_without_a_gap(
    installation: Installation, events: Events
) -> None:
    async with running(installation.receiver_config()) as service:
        config = config_of(installation, service.listeners[0].address, "a", "b")
        async with Forwarder(config) as forwarder:
            write(installation, "a", *lines(10))
            await eventually(lambda: len(since(forwarder)) == 2)
            first = since(forwarder)
            assert (await forwarder.reload(lambda: config)).renewed == ()
            assert since(forwarder) == first
            installation.parties.leaf("forwarder", identities=[FORWARDER], force=True)
            checked = await forwarder.reload(lambda: config, check=True)
            assert (checked.renewed, checked.relinked, checked.changed) == (("tls",), ("a", "b"), ())
            assert (await forwarder.reload(lambda: config)).renewed == ("tls",)
            await eventually(lambda: len(since(forwarder).items() - first.items()) == 2)
            write(installation, "a", *lines(10, 10))
            await eventually(lambda: acknowledged(forwarder, "a") == 20)
            renewed = load_pem_x509_certificate(installation.parties.forwarder.certificate.read_bytes())
            await eventually(lambda: serials(service) == {renewed.serial_number})
            assert (await forwarder.reload(lambda: config)).renewed == ()
    assert found(events, "link failed") == []
