"""The limit of open files is divided between the streams that follow files."""

from __future__ import annotations

from pathlib import Path

import pytest

from logfwd.config import ForwarderConfig
from logfwd.definition import Stream
from logfwd.openfiles import LEAST_FILES, OWN_DESCRIPTORS, check, share
from logfwd.sources.http.settings import HttpSource
from logfwd.sources.settings import FileSource, StdinSource
from logfwd.sources.syslog.settings import SyslogSource
from streams.config.sections import Tls
from streams.errors import ConfigError

HERE = Path("x")


def config(*streams: Stream) -> ForwarderConfig:
    return ForwarderConfig(
        state_dir=HERE, tls=Tls(certificate=HERE, key=HERE, ca=HERE), receivers=("localhost:1",), streams=streams
    )


def following(name: str, files: int) -> Stream:
    return Stream(name=name, source=FileSource(paths=("x",), max_open_files=files))


@pytest.mark.parametrize("limit", [1024, 10**9])
def test_with_enough_of_them_each_stream_gets_what_it_asks_for(limit: int) -> None:
    assert share(config(following("a", 100), following("b", 256)), limit).files == 256


@pytest.mark.parametrize("limit", range(150, 700, 7))
def test_with_few_the_streams_have_equal_parts_that_fit_together(limit: int) -> None:
    found = share(config(following("a", 256), following("b", 256)), limit)
    assert found.wanted_limit > 600
    assert limit - 2 * found.files > OWN_DESCRIPTORS
    assert found.files >= LEAST_FILES
    assert limit - 2 * found.files < OWN_DESCRIPTORS + 2 * 14 + 2 or found.files == 256


@pytest.mark.parametrize("limit", range(36, 200))
def test_with_so_few_that_hardly_anything_works_each_stream_has_at_least_one_file(limit: int) -> None:
    found = share(config(following("a", 256), following("b", 256)), limit)
    assert found.least_limit == 36
    assert 1 <= found.files <= max(LEAST_FILES, (limit - OWN_DESCRIPTORS) // 2)
    assert found.least_limit - 2 + 2 * found.files <= limit


@pytest.mark.parametrize(("streams", "least"), [("a", 28), ("ab", 36), ("abc", 44)])
def test_a_limit_below_what_the_streams_need_is_a_fault_that_says_what_they_need(streams: str, least: int) -> None:
    needed = config(*(following(name, 256) for name in streams))
    check(needed, HERE, least)
    with pytest.raises(ConfigError, match=f"at least {least} open files, and this process may have {least - 1}; raise"):
        check(needed, HERE, least - 1)


def test_clients_of_listeners_have_their_part_once_for_each_address() -> None:
    http = [Stream(name=name, source=HttpSource(max_connections=200)) for name in "ab"]
    syslog = Stream(name="c", source=SyslogSource(tcp=("127.0.0.1:1",), udp=("127.0.0.1:1",), max_connections=300))
    alone = share(config(following("f", 256)), 10).wanted_limit
    stdin = Stream(name="s", source=StdinSource())
    plain = share(config(following("f", 256), stdin), 10).wanted_limit - alone
    assert share(config(following("f", 256), *http, syslog), 10).wanted_limit - alone - 3 * plain in (500, 501)
    assert share(config(*http), 10).files == 0


def test_a_twin_needs_a_link_alone() -> None:
    twin = Stream(name="t", mirror_of="f")
    assert (
        share(config(following("f", 1), twin), 10).wanted_limit - share(config(following("f", 1)), 10).wanted_limit == 2
    )
