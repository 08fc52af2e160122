"""Files with secrets that others can open are said: each of them, wherever the configuration names it, and no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from logfwd.config import ForwarderConfig
from logfwd.definition import Stream
from logfwd.sources.http.settings import HttpSource
from logfwd.sources.syslog.settings import SyslogSource
from logfwd.sources.terms import ListenerTls
from logreceiver.config import Allow, Listener, ReceiverConfig
from logreceiver.sinks.settings import KafkaSink, Sasl
from streams.config.exposed import exposed, tell_of_secrets
from streams.config.sections import Delegated, MlDsa, MlKem, Previous, SinkTls, Tls

SECRETS = ("tls", "mldsa", "mlkem", "previous", "delegated", "grant", "sink", "password", "token", "http", "syslog")


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    made = {name: tmp_path / name for name in (*SECRETS, "certificate")}
    for path in made.values():
        path.touch(0o600)
    made["certificate"].chmod(0o644)
    return made


def configs(files: dict[str, Path]) -> tuple[msgspec.Struct, ...]:
    def pair(name: str) -> dict[str, Any]:
        return {"certificate": files["certificate"], "key": files[name], "ca": files["certificate"]}

    tls = Tls(
        **pair("tls"),
        mldsa=MlDsa(**pair("mldsa")),
        mlkem=MlKem(**pair("mlkem"), previous=(Previous(certificate=files["certificate"], key=files["previous"]),)),
        delegated=Delegated(**pair("delegated")),
    )
    receiver = ReceiverConfig(
        grant_key_file=files["grant"],
        listener=(Listener(address=":0"),),
        allow=(Allow(identity="*", streams=("*",)),),
        sink=KafkaSink(
            brokers=("localhost:9092",),
            tls=SinkTls(**pair("sink")),
            sasl=Sasl(username="u", password_file=files["password"]),
        ),
        tls=tls,
    )
    http = HttpSource(token_file=files["token"], tls=ListenerTls(**pair("http")))
    syslog = SyslogSource(tls=ListenerTls(**pair("syslog")))
    streams = (Stream(name="a", source=http), Stream(name="b", source=syslog))
    forwarder = ForwarderConfig(state_dir=Path("/nowhere"), receivers=("localhost:1",), streams=streams)
    return receiver, forwarder


def test_files_for_their_owner_and_a_group_that_reads_are_not_said(files: dict[str, Path]) -> None:
    for name in SECRETS:
        files[name].chmod(0o640)
    assert exposed(*configs(files)) == []


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize(("mode", "reason"), [(0o604, "every user can read it"), (0o620, "others can write it")])
def test_a_secret_that_others_can_open_is_said(files: dict[str, Path], name: str, mode: int, reason: str) -> None:
    files[name].chmod(mode)
    ((path, said),) = exposed(*configs(files))
    assert (path, said) == (files[name], f"{reason} (mode {mode:04o})")


def test_what_is_logged_names_the_file_and_what_to_do(files: dict[str, Path]) -> None:
    files["grant"].chmod(0o644)
    with capture_logs() as logged:
        tell_of_secrets(*configs(files))
    (event,) = logged
    assert event["event"] == "secret open to others"
    assert event["path"] == str(files["grant"])
    assert "chmod 0600" in event["remedy"]


def test_what_cannot_be_looked_at_is_left_to_whoever_loads_it(files: dict[str, Path]) -> None:
    files["password"].unlink()
    assert exposed(*configs(files)) == []
