"""Fixtures of the integration tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from bench.lab.debian import unpack
from bench.lab.processes import StartFailed
from logfwd.links import resume
from tests.support import syslog_clients
from tests.support.delivery import ANSWER_SECONDS
from tests.support.installation import Events, Installation

PACKAGE_OF = {"curl": "curl", "logger": "bsdutils"}


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


@pytest.fixture
def events() -> Iterator[Events]:
    with capture_logs() as captured:
        yield captured


@pytest.fixture
def quick_resets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reset waits one second for late copies; tests that use this know where theirs are."""
    monkeypatch.setattr(resume, "LATE_COPY_MARGIN_SECONDS", 1.0 - ANSWER_SECONDS)


# -- programs that others wrote, from Debian's packages ------------------------------------------------------------


def _unpacked(names: tuple[str, ...], factory: pytest.TempPathFactory) -> Path:
    try:
        return unpack(names, factory.mktemp(names[0]))
    except StartFailed as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def rsyslog_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _unpacked(syslog_clients.RSYSLOG, tmp_path_factory)


@pytest.fixture(scope="session")
def syslog_ng_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _unpacked(syslog_clients.SYSLOG_NG, tmp_path_factory)


@pytest.fixture(scope="session")
def nginx_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _unpacked(syslog_clients.NGINX, tmp_path_factory)


@pytest.fixture(scope="session")
def logrotate_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _unpacked(("logrotate", "libpopt0", "libacl1", "libselinux1"), tmp_path_factory)


@pytest.fixture(scope="session")
def curl() -> str:
    return _program("curl")


@pytest.fixture(scope="session")
def logger() -> str:
    return _program("logger")


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed; Debian has it in the package {PACKAGE_OF[name]}")
    return path
