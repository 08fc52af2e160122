"""`logfwd validate` and `logreceiver validate` report what would make a start fail, without starting."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from logfwd.cli import main as logfwd
from logreceiver.cli import main as logreceiver
from tests.support.tls import Parties

CONFIGS: dict[click.Group, str] = {
    logfwd: 'state_dir = "state"\nreceivers = ["localhost:7443"]\n{tls}',
    logreceiver: 'grant_key_file = "{grants}"\n{tls}'
    '[[listener]]\naddress = ":7443"\n[[allow]]\nidentity = "*"\nstreams = ["*"]\n'
    '[sink]\ntype = "log"\ndirectory = "log"\n',
}


def validate(program: click.Group, directory: Path, *, key: str = "forwarder.key", grants: str = "grant.key") -> str:
    Parties(directory)
    (directory / "streams.d").mkdir()
    (directory / "streams.d" / "http.toml").write_text('name = "http"\n[source]\ntype = "stdin"\n')
    tls = f'[tls]\ncertificate = "forwarder.pem"\nkey = "{key}"\nca = "ca.pem"\n'
    path = directory / "config.toml"
    path.write_text(CONFIGS[program].format(tls=tls, grants=grants))
    result = CliRunner().invoke(program, ["validate", "-c", str(path)])
    assert result.exit_code == (78 if (key, grants) != ("forwarder.key", "grant.key") else 0)
    return result.output


@pytest.mark.parametrize("program", CONFIGS)
def test_a_config_without_problems_says_what_it_would_do(program: click.Group, tmp_path: Path) -> None:
    assert "hybrid" in validate(program, tmp_path)


@pytest.mark.parametrize("program", CONFIGS)
@pytest.mark.parametrize(("key", "problem"), [("receiver.key", "mismatch"), ("ca.pem", "tls.key: cannot be used")])
def test_a_key_that_is_not_the_certificate_s_is_told(
    program: click.Group, tmp_path: Path, key: str, problem: str
) -> None:
    assert problem in validate(program, tmp_path, key=key)


def test_all_files_that_cannot_be_used_are_told_at_once(tmp_path: Path) -> None:
    output = validate(logreceiver, tmp_path, key="receiver.key", grants="ca.pem")
    assert "no usable grant key" in output
    assert "mismatch" in output


def test_files_of_a_listener_that_cannot_be_used_are_reported(tmp_path: Path) -> None:
    Parties(tmp_path)
    (tmp_path / "streams.d").mkdir()
    (tmp_path / "streams.d" / "web.toml").write_text(
        'name = "web"\n[source]\ntype = "http"\n[source.tls]\ncertificate = "receiver.pem"\nkey = "forwarder.key"\n'
    )
    path = tmp_path / "config.toml"
    tls = '[tls]\ncertificate = "forwarder.pem"\nkey = "forwarder.key"\nca = "ca.pem"\n'
    path.write_text(CONFIGS[logfwd].format(tls=tls))
    result = CliRunner().invoke(logfwd, ["validate", "-c", str(path)])
    assert result.exit_code == 78
    assert "source.tls.key: " in result.output
    assert "mismatch" in result.output
