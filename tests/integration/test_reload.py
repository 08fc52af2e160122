"""A receiver takes a new configuration while it runs: rights, addresses, limits, keys; or keeps the last good one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from msgspec.structs import replace

from logfwd.config import ForwarderConfig
from logfwd.forwarder import Forwarder
from logreceiver import oversight
from logreceiver.config import Admin, Allow, Deny, Ledger, Limits, Listener, ReceiverConfig
from logreceiver.reloading import Report
from logreceiver.service import Service
from streams.config.changes import digest
from streams.config.sections import Tls
from streams.errors import ConfigError, Problem
from streams.security.revocation import revoke
from tests.support.installation import Events, Installation, acknowledged, eventually, found, lines, running

NAMES = ("a", "b", "c")
EVERYONE = Allow(identity="spiffe://test/*", streams=("*",))


class Fleet:
    """A receiver, and forwarders of three hosts, each with a stream of its host's name."""

    def __init__(self, directory: Path) -> None:
        self.installation = Installation(directory)
        self.service: Service
        self.forwarders: dict[str, Forwarder] = {}
        self.written = dict.fromkeys(NAMES, 0)

    def forwarder_config(self, name: str) -> ForwarderConfig:
        leaf = self.installation.parties.leaf(name, identities=[f"spiffe://test/{name}"])
        source = self.installation.directory / f"{name}.log"
        source.touch()
        stream = self.installation.stream()
        assert stream.source is not None
        return ForwarderConfig(
            state_dir=self.installation.directory / f"state-{name}",
            tls=Tls(certificate=leaf.certificate, key=leaf.key, ca=leaf.ca),
            receivers=(self.service.listeners[0].address,),
            admin=None,
            streams=(replace(stream, name=name, source=replace(stream.source, paths=(str(source),))),),
            stop_grace_seconds=1.0,
        )

    async def reload(self, config: ReceiverConfig, *, check: bool = False, confirm: str = "") -> Report:
        return await self.service.reload(lambda: config, check=check, confirm=confirm)

    def write(self, name: str, count: int = 10) -> None:
        with (self.installation.directory / f"{name}.log").open("a") as out:
            out.write("".join(f"{line}\n" for line in lines(count, self.written[name])))
        self.written[name] += count

    async def delivered(self, *names: str) -> None:
        for name in names:
            await eventually(lambda name=name: acknowledged(self.forwarders[name], name) == self.written[name])  # type: ignore[misc]
            assert self.installation.stored(name) == lines(self.written[name])

    def ages(self) -> dict[str, float]:
        """How old the link of each stream is, for those that have one."""
        rows = {name: self.forwarders[name].describe()[0]["link"] for name in NAMES}
        return {name: link["age_seconds"] for name, link in rows.items() if link is not None}


@contextlib.asynccontextmanager
async def fleet(directory: Path) -> AsyncIterator[tuple[Fleet, ReceiverConfig]]:
    made = Fleet(directory)
    config = replace(made.installation.receiver_config(), allow=(EVERYONE,))
    async with contextlib.AsyncExitStack() as stack:
        made.service = await stack.enter_async_context(running(config))
        for name in NAMES:
            forwarder = Forwarder(made.forwarder_config(name))
            made.forwarders[name] = await stack.enter_async_context(forwarder)
            made.write(name)
        await made.delivered(*NAMES)
        yield made, config


async def test_one_host_is_shut_out_and_comes_back_and_the_others_keep_their_links(
    tmp_path: Path, events: Events
) -> None:
    async with fleet(tmp_path) as (hosts, config):
        before = hosts.ages()
        report = await hosts.reload(replace(config, deny=(Deny(identity="spiffe://test/b"),)))
        assert (report.outcome, report.taken, report.links, report.ends) == ("taken", ("deny",), 3, 1)
        await eventually(lambda: "b" not in hosts.ages(), 5.0)
        for name in NAMES:
            hosts.write(name)
        await hosts.delivered("a", "c")
        assert hosts.installation.stored("b") == lines(10)
        assert {event["reason"] for event in found(events, "link failed")} == {"revoked"}
        assert all(hosts.ages()[name] > before[name] for name in ("a", "c"))
        await hosts.reload(config)
        await hosts.delivered("b")
        assert all(event["stream"] == "b" for event in found(events, "link failed"))
        assert hosts.forwarders["b"].describe()[0]["resets"] == 0


async def test_rules_that_would_end_most_links_have_to_be_confirmed(tmp_path: Path, events: Events) -> None:
    async with fleet(tmp_path) as (hosts, config):
        mistyped = replace(config, allow=(replace(EVERYONE, identity="spiffe://tset/*"),))
        refused = await hosts.reload(mistyped)
        assert (refused.outcome, refused.reason, refused.ends) == ("refused", "it ends too many links", 3)
        assert refused.digest in refused.remedy
        assert (await hosts.reload(mistyped, confirm="another")).outcome == "refused"
        assert hosts.service.config == config
        for name in NAMES:
            hosts.write(name)
        await hosts.delivered(*NAMES)
        assert not found(events, "link failed")
        taken = await hosts.reload(mistyped, confirm=refused.digest)
        assert (taken.outcome, taken.ends) == ("taken", 3)
        await eventually(lambda: not hosts.ages())
        assert (await hosts.reload(replace(config, deny=(Deny(identity="*"),)))).outcome == "taken"


async def test_a_mistyped_identity_of_one_rule_among_others_has_to_be_confirmed(tmp_path: Path, events: Events) -> None:
    async with fleet(tmp_path) as (hosts, config):
        rules = tuple(replace(EVERYONE, identity=f"spiffe://test/{name}") for name in NAMES)
        each = replace(config, allow=rules)
        assert (await hosts.reload(each)).ends == 0
        mistyped = replace(each, allow=(rules[0], replace(rules[1], identity="spiffe://tset/b"), rules[2]))
        refused = await hosts.reload(mistyped)
        assert (refused.outcome, refused.ends) == ("refused", 1)
        assert refused.reason == "it takes all rights from the links of [[allow]] spiffe://test/b"
        assert refused.ending == ("spiffe://test/b, stream b: spiffe://test/b may not write stream 'b'",)
        assert found(events, "config rejected")[-1]["ending"] == list(refused.ending)
        assert hosts.service.config == each
        moved = replace(each, allow=(rules[0], replace(rules[1], topic="elsewhere"), rules[2]))
        assert (await hosts.reload(moved, check=True)).outcome == "checked", "its next link has rights"
        covered = replace(each, allow=(*rules[:1], *rules[2:], EVERYONE))
        assert (await hosts.reload(covered, check=True)).ends == 0, "another rule gives them"
        meant = replace(mistyped, deny=(Deny(identity="spiffe://test/b"),))
        assert (await hosts.reload(meant, check=True)).outcome == "checked", "it says whom to shut out"
        taken = await hosts.reload(mistyped, confirm=refused.digest)
        assert (taken.outcome, taken.ending) == ("taken", refused.ending)
        await eventually(lambda: "b" not in hosts.ages())


async def test_a_revoked_certificate_is_shut_out_and_a_new_one_of_its_host_let_in(
    tmp_path: Path, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logreceiver.service.CERTIFICATE_CHECK_SECONDS", 0.02)
    async with fleet(tmp_path) as (hosts, config):
        authority = hosts.installation.parties.authority
        stolen = x509.load_pem_x509_certificate((authority.directory / "b.pem").read_bytes())
        path, _ = revoke(authority, [], days=1)
        assert (await hosts.reload(replace(config, crl=(path,), crl_required=True))).ends == 0
        before = hosts.ages()
        revoke(authority, [stolen], days=1)  # seen without a reload
        await eventually(lambda: "b" not in hosts.ages(), 5.0)
        for name in NAMES:
            hosts.write(name)
        await hosts.delivered("a", "c")
        await eventually(lambda: len(found(events, "link failed")) > 1)  # also on a new link
        assert {event["reason"] for event in found(events, "link failed")} == {"revoked"}
        hosts.installation.parties.leaf("b", identities=["spiffe://test/b"], force=True)
        await hosts.delivered("b")
        assert all(hosts.ages()[name] > before[name] for name in ("a", "c"))


async def test_a_link_ends_at_its_greatest_age_and_another_follows(
    installation: Installation, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oversight, "LOOK_SECONDS", 0.02)
    config = replace(installation.receiver_config(), limits=Limits(max_link_age_seconds=0.3))
    written = 0
    async with running(config) as service:
        forwarder_config = installation.forwarder_config(service.listeners[0].address)
        async with Forwarder(forwarder_config) as forwarder, asyncio.timeout(30):
            while sum(1 + event["more"] for event in found(events, "link closed")) < 3:
                installation.append(*lines(20, written))
                written += 20
                await asyncio.sleep(0.02)
            await eventually(lambda: acknowledged(forwarder) == written)
    assert installation.stored() == lines(written)
    assert not found(events, "link failed"), "asked to leave, a forwarder leaves"


async def test_a_rule_that_goes_asks_one_host_to_leave_and_no_batch_is_left_uncertain(
    tmp_path: Path, events: Events
) -> None:
    async with fleet(tmp_path) as (hosts, config):
        kept = replace(EVERYONE, identity="spiffe://test/[ac]")
        assert (await hosts.reload(replace(config, allow=(kept,)))).ends == 1
        await eventually(lambda: "b" not in hosts.ages(), 5.0)
        await eventually(lambda: found(events, "link failed"))
        assert {event["reason"] for event in found(events, "link failed")} == {"not_allowed"}
        hosts.write("b")
        await hosts.reload(config)
        await hosts.delivered("b")


async def test_a_check_says_what_would_be_done_and_does_nothing(tmp_path: Path, events: Events) -> None:
    async with fleet(tmp_path) as (hosts, config):
        new = replace(
            config,
            deny=(Deny(identity="spiffe://test/b"),),
            listener=(*config.listener, Listener(address="localhost:0")),
            admin=Admin(),
        )
        report = await hosts.reload(new, check=True)
        assert (report.outcome, report.ends, report.waits) == ("checked", 1, ("admin",))
        assert set(report.taken) == {"deny", "listener"}
        assert report.digest == digest(new)
        assert (len(hosts.service.listeners), hosts.service.config) == (1, config)
        assert not found(events, "config reloaded")
        for name in NAMES:
            hosts.write(name)
        await hosts.delivered(*NAMES)


async def test_what_cannot_be_used_is_refused_whole_and_said(tmp_path: Path, events: Events) -> None:
    def ok(service: Service) -> float | None:
        return service.registry.get_sample_value("logreceiver_config_last_reload_successful")

    installation = Installation(tmp_path)
    config = installation.receiver_config()

    def broken() -> ReceiverConfig:
        raise ConfigError([Problem(Path("logreceiver.toml"), "allow", "is missing")])

    async with running(config) as service:
        deny = (Deny(identity="*"),)
        taken_address = service.listeners[0].address
        busy = replace(config, deny=deny, listener=(*config.listener, Listener(address=taken_address)))
        (tmp_path / "empty").touch()
        keyless = replace(config, deny=deny, grant_key_file=tmp_path / "empty")
        bad: Iterator[tuple[object, str]] = iter(
            [(broken, "is missing"), (lambda: busy, "cannot listen"), (lambda: keyless, "no usable grant key")]
        )
        for load, problem in bad:
            assert ok(service) == (0.0 if found(events, "config rejected") else 1.0)
            report = await service.reload(load)  # type: ignore[arg-type]
            assert (report.outcome, report.reason) == ("refused", "invalid")
            assert problem in report.problems[0]
            assert ok(service) == 0.0
            assert service._degraded() == {"config": f"the last reload was refused: invalid; {report.problems[0]}"}
            assert service.config == config
            assert len(service.listeners) == 1
        assert len(found(events, "config rejected")) == 3
        assert (await service.reload(lambda: config)).outcome == "taken"
        assert ok(service) == 1.0
        assert service._degraded() == {}


async def test_an_address_is_opened_and_the_links_of_one_that_is_closed_move(
    installation: Installation, events: Events
) -> None:
    config = installation.receiver_config()
    async with running(config) as service:
        second = Listener(address="127.0.0.1:0")
        both = (*config.listener, second)
        await service.reload(lambda: replace(config, listener=both))
        addresses = {listener.address: each for listener, each in zip(service.listeners, both, strict=True)}
        forwarder_config = replace(
            installation.forwarder_config(service.listeners[0].address), receivers=tuple(addresses)
        )
        async with Forwarder(forwarder_config) as forwarder:
            installation.append(*lines(10))
            await eventually(lambda: acknowledged(forwarder) == 10)
            port = forwarder.describe()[0]["link"]["receiver"].rpartition(":")[2]  # it takes the addresses in any order
            ((old, _), (new, kept)) = sorted(addresses.items(), key=lambda each: not each[0].endswith(port))
            assert (await service.reload(lambda: replace(config, listener=(kept,)))).ends == 1
            assert [listener.address for listener in service.listeners] == [new]
            installation.append(*lines(10, 10))
            await eventually(lambda: acknowledged(forwarder) == 20)
            assert forwarder.describe()[0]["link"]["receiver"].rpartition(":")[2] == new.rpartition(":")[2]
    assert installation.stored() == lines(20)
    assert [event["address"] for event in found(events, "no longer listening")] == [old]


async def test_limits_and_grant_keys_and_the_ledger_are_taken(installation: Installation, events: Events) -> None:
    config = installation.receiver_config()
    async with running(config) as service:
        address = service.listeners[0].address
        async with Forwarder(installation.forwarder_config(address)) as forwarder:
            installation.append(*lines(10))
            await eventually(lambda: acknowledged(forwarder) == 10)
            first = config.grant_key_file.read_text()
            config.grant_key_file.write_text(f"new:{'ab' * 32}\n{first}")
            new = replace(config, limits=Limits(max_links=1), ledger=Ledger(topic="second"))
            assert set((await service.reload(lambda: new)).taken) == {"limits.max_links", "ledger.topic"}
            installation.append(*lines(10, 10))
            await eventually(lambda: acknowledged(forwarder) == 20)
        other = replace(installation.forwarder_config(address), state_dir=installation.directory / "other")
        async with Forwarder(other) as forwarder:
            await eventually(lambda: acknowledged(forwarder) == 20)
    assert installation.stored() == [*lines(20), *lines(20)]
    assert installation.stored("logfwd.ledger")
    assert installation.stored("second")
