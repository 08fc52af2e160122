"""Which stack serves which mode: one port, one stack; files that are checked; a start that proves its modes."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from streams.errors import ConfigError, HandshakeFailed, PolicyViolation
from streams.security import modes, stacks
from streams.security.endpoint import Credentials
from streams.security.modes import MODES
from streams.security.openssl import party as openssl
from tests.support.tls import Parties

OTHER = msgspec.structs.replace(MODES["hybrid"], name="other", stack="another")


def test_every_mode_has_a_stack_and_the_experimental_ones_are_said_aloud() -> None:
    with capture_logs() as events:
        stacks.self_test(MODES.values())
    assert [(each["event"], each["mode"]) for each in events] == [
        ("experimental mode", name) for name in ("kemtls", "kemtls-pdk")
    ]


def test_one_port_serves_one_stack(tmp_path: Path) -> None:
    receiver = Parties(tmp_path).receiver
    ports = stacks.by_port(MODES.values())
    assert [stacks.common_stack(port) for port in ports] == ["openssl", "tls13", "tls13"]
    assert sorted(mode.name for port in ports for mode in port) == sorted(MODES)
    for port in ports:
        stacks.server(port, receiver)
    with pytest.raises(ConfigError, match=r"'other' \(another\) and 'hybrid' \(openssl\) need different TLS stacks"):
        stacks.server([MODES["hybrid"], OTHER], receiver)
    with pytest.raises(ConfigError, match=r"'hybrid' \(openssl\) and 'kemtls' \(tls13\) need different TLS stacks"):
        stacks.server([MODES["hybrid"], MODES["kemtls"]], receiver)
    stored = r"'kemtls' \(tls13\) and 'kemtls-pdk' \(tls13 with stored keys\) need different handshakes"
    with pytest.raises(ConfigError, match=stored):
        stacks.server([MODES["kemtls"], MODES["kemtls-pdk"]], receiver)


def test_files_that_cannot_be_used_are_found_without_a_link(tmp_path: Path) -> None:
    parties = Parties(tmp_path)
    stacks.check(parties.receiver, MODES.values(), accepting=True)
    wrong = Credentials(parties.receiver.certificate, parties.forwarder.key, parties.receiver.ca)
    with pytest.raises(ConfigError, match=re.escape(f"{parties.forwarder.key}: tls.key: ")):
        stacks.check(wrong, MODES.values(), accepting=True)


@pytest.mark.parametrize("error", [HandshakeFailed("no_shared_group", "no such group"), PolicyViolation("too weak")])
def test_a_mode_that_does_not_work_here_is_named_by_the_self_test(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(modes, "check", fail)
    with pytest.raises(ConfigError, match=f"hybrid: mode: self-test: {error}; reinstall"):
        stacks.self_test([MODES["hybrid"]])


def test_a_handshake_that_gives_another_group_does_not_pass_the_self_test(monkeypatch: pytest.MonkeyPatch) -> None:
    real = openssl.client
    monkeypatch.setattr(openssl, "client", lambda _, files, **__: real(MODES["classical"], files))
    monkeypatch.setattr(openssl, "server", lambda _, files, _real=openssl.server: _real([MODES["classical"]], files))
    with pytest.raises(ConfigError, match=r"the link has TLSv1\.3 with X25519"):
        stacks.self_test([MODES["hybrid"]])
