"""The [source] table: every type has a source, and what only one stream can read is claimed once."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from msgspec.structs import replace

from logfwd.sources.front import Front
from logfwd.sources.http.settings import HttpSource, check_intake_address
from logfwd.sources.make import Context, make_source
from logfwd.sources.permits import Permits
from logfwd.sources.settings import TYPES, Claims, FileSource, SourceSettings, StdinSource
from logfwd.sources.syslog.settings import SyslogSource, check_socket_path
from logfwd.sources.terms import ListenerTls, check_socket_mode

TLS = ListenerTls(certificate=Path("leaf.pem"), key=Path("leaf.key"))
WITH_CA = replace(TLS, ca=Path("ca.pem"))
UDP = SyslogSource(udp=("127.0.0.1:514",))
EXAMPLES: tuple[SourceSettings, ...] = (FileSource(paths=("a.log",)), StdinSource(), HttpSource(), UDP)


def test_there_is_an_example_of_every_type() -> None:
    assert {type(each) for each in EXAMPLES} == set(get_args(SourceSettings))
    assert sorted(TYPES) == ["file", "http", "stdin", "syslog"]


@pytest.mark.parametrize("settings", EXAMPLES, ids=TYPES)
def test_every_type_has_a_source(settings: SourceSettings) -> None:
    with Front().open("s") as handle:
        source = make_source(settings, Context(1000, 1000, handle, Permits(1).for_a_stream()))
    assert source.lag_bytes() == 0
    assert source.forgotten() == []
    assert list(source.stop()) == []
    assert source.health() == {}


def test_files_may_be_read_by_several_streams_and_standard_input_by_one() -> None:
    claims = Claims()
    for stream in ("a", "b"):
        assert list(claims.conflicts(stream, FileSource(paths=("a.log",)))) == []
    assert list(claims.conflicts("a", StdinSource())) == []
    assert list(claims.conflicts("a", StdinSource())) == [], "a stream does not conflict with itself"
    for stream in ("b", "c"):
        ((key, message),) = claims.conflicts(stream, StdinSource())
        assert (key, message) == ("source.type", "stdin is read by stream 'a' already; only one stream can read it")


def test_streams_may_share_a_listener_on_the_same_terms() -> None:
    claims = Claims()
    assert list(claims.conflicts("a", HttpSource())) == []
    assert list(claims.conflicts("b", HttpSource(max_body_bytes=1024, max_keys=1))) == [], "these are its own"
    assert list(claims.conflicts("c", HttpSource(address="127.0.0.1:1", max_connections=1))) == []
    ((key, message),) = claims.conflicts("d", HttpSource(max_connections=1, header_seconds=1.0))
    assert key == "source.address"
    assert message == (
        "the listener at 127.0.0.1:8088 is used by stream 'a' with other settings; "
        "give both the same max_connections, header, or another address"
    )


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        (HttpSource(), None),
        (HttpSource(address="unix:/run/in.sock"), None),
        (HttpSource(address="[::1]:80"), None),
        (HttpSource(address=":8088"), "source.address"),
        (HttpSource(address="192.0.2.1:8088"), "source.address"),
        (HttpSource(address="192.0.2.1:8088", insecure=True), None),
        (HttpSource(address=":8088", tls=TLS), "source.token_file"),
        (HttpSource(address=":8088", tls=TLS, insecure=True), None),
        (HttpSource(address=":8088", tls=TLS, token_file=Path("tokens")), None),
        (HttpSource(address=":8088", tls=WITH_CA, identities=("a",)), None),
        (HttpSource(tls=TLS, identities=("a",)), "source.identities"),
        (HttpSource(identities=("a",)), "source.identities"),
        (HttpSource(tls=replace(TLS, modes=("hybrid", "pq-auth"))), "source.tls.modes"),
        (HttpSource(tls=replace(TLS, modes=("kemtls",))), "source.tls.modes"),
    ],
)
def test_who_may_reach_a_listener_is_said_aloud(settings: HttpSource, key: str | None) -> None:
    assert [found for found, _ in settings.faults()] == ([] if key is None else [key])


@pytest.mark.parametrize("address", ["unix:relative", "unix:", "8088", "host", "::1:80"])
def test_addresses_that_cannot_be_listened_on(address: str) -> None:
    with pytest.raises(ValueError, match=r"path|HOST:PORT|brackets"):
        check_intake_address(address)


@pytest.mark.parametrize("mode", ["0778", "rw", "66", "00660"])
def test_modes_of_sockets_are_octal(mode: str) -> None:
    with pytest.raises(ValueError, match="octal"):
        check_socket_mode(mode)


def test_an_address_of_syslog_is_read_by_one_stream() -> None:
    claims = Claims()
    assert list(claims.conflicts("a", SyslogSource(udp=("h:1",), tcp=("h:1", "h:0"), unix=("/dev/log",)))) == []
    assert list(claims.conflicts("b", SyslogSource(udp=("h:2",), tcp=("h:0",)))) == []
    found = list(claims.conflicts("c", SyslogSource(udp=("h:1",), tcp_tls=("h:3", "h:1"), unix=("/dev/log",))))
    assert [key for key, _ in found] == ["source.udp[0]", "source.tcp_tls[1]", "source.unix[0]"]
    assert found[2][1] == "unix /dev/log is read by stream 'a' already; only one stream can read it"


@pytest.mark.parametrize(
    ("settings", "keys"),
    [
        (UDP, []),
        (SyslogSource(tcp=("[::1]:514",), unix=("/dev/log",)), []),
        (SyslogSource(tcp_tls=(":6514",), tls=WITH_CA, identities=("web*",)), []),
        (SyslogSource(tcp_tls=(":6514",)), ["source.tls"]),
        (SyslogSource(tcp_tls=(":6514",), tls=TLS), ["source.tls.ca"]),
        (SyslogSource(tcp_tls=(":6514",), tls=TLS, insecure=True), []),
        (SyslogSource(tcp_tls=(":6514",), tls=TLS, insecure=True, identities=("web*",)), ["source.tls.ca"]),
        (SyslogSource(tcp_tls=(":6514",), tls=replace(WITH_CA, modes=("pq-auth",))), ["source.tls.modes"]),
        (SyslogSource(tcp=("127.0.0.1:1",), tls=WITH_CA), ["source.tls"]),
        (SyslogSource(tcp=("127.0.0.1:1",), identities=("web*",)), ["source.identities"]),
        (SyslogSource(), ["source"]),
        (SyslogSource(udp=("127.0.0.1:1", ":514"), tcp=("192.0.2.1:514",)), ["source.udp[1]", "source.tcp[0]"]),
        (SyslogSource(udp=(":514",), tcp=(":514",), insecure=True), []),
        (SyslogSource(tcp=("127.0.0.1:1",), tcp_tls=("127.0.0.1:1",), tls=WITH_CA), ["source.tcp_tls[0]"]),
        (SyslogSource(tcp=("127.0.0.1:1",), over="wait"), []),
        (SyslogSource(udp=("127.0.0.1:1",), over="wait"), ["source.over"]),
        (SyslogSource(unix=("/dev/log",), over="wait"), ["source.over"]),
        (SyslogSource(unix=("/dev/log",), over="drop"), []),
    ],
)
def test_syslog_settings_that_contradict_each_other_are_refused(settings: SyslogSource, keys: list[str]) -> None:
    assert [key for key, _ in settings.faults()] == keys


@pytest.mark.parametrize("path", ["log", "", "/" + "x" * 107, "/a\0"])
def test_a_socket_has_an_absolute_path_that_fits(path: str) -> None:
    with pytest.raises(ValueError, match="absolute path of at most 107 bytes"):
        check_socket_path(path)
