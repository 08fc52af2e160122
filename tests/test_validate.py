"""`logfwd validate` and `logreceiver validate` report what would make a start fail, without starting."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from logfwd.cli import main as logfwd
from logreceiver.cli import main as logreceiver
from streams.security import pki
from tests.support.tls import FORWARDER, Parties, delegating, issue

CONFIGS: dict[click.Group, str] = {
    logfwd: 'state_dir = "state"\nreceivers = ["localhost:7443"]\n{tls}',
    logreceiver: 'grant_key_file = "{grants}"\n{tls}'
    '[[listener]]\naddress = ":7443"\n[[allow]]\nidentity = "*"\nstreams = ["*"]\n'
    '[sink]\ntype = "log"\ndirectory = "log"\n',
}


def validate(program: click.Group, directory: Path, *, key: str = "", grants: str = "grant.key") -> str:
    Parties(directory)
    party = "receiver" if program is logreceiver else "forwarder"
    (directory / "streams.d").mkdir()
    (directory / "streams.d" / "http.toml").write_text('name = "http"\n[source]\ntype = "stdin"\n')
    tls = f'[tls]\ncertificate = "{party}.pem"\nkey = "{key or f"{party}.key"}"\nca = "ca.pem"\n'
    path = directory / "config.toml"
    path.write_text(CONFIGS[program].format(tls=tls, grants=grants))
    result = CliRunner().invoke(program, ["validate", "-c", str(path)])
    assert result.exit_code == (78 if (key, grants) != ("", "grant.key") else 0)
    return result.output


@pytest.mark.parametrize("program", CONFIGS)
def test_a_config_without_problems_says_what_it_would_do(program: click.Group, tmp_path: Path) -> None:
    assert "hybrid" in validate(program, tmp_path)


@pytest.mark.parametrize("program", CONFIGS)
@pytest.mark.parametrize(
    ("key", "problem"),
    [("ca.key", "is not the key of the certificate"), ("ca.pem", "holds CERTIFICATE and no PRIVATE KEY")],
)
def test_a_key_that_is_not_the_certificate_s_is_told(
    program: click.Group, tmp_path: Path, key: str, problem: str
) -> None:
    assert problem in validate(program, tmp_path, key=key)


@pytest.mark.parametrize(
    ("pattern", "remedy"),
    [
        ("logs/*.josn", "check the name"),
        ("~/x.log", "~ is not expanded"),
        ("logs/{a,b}.log", "{a,b} is not expanded"),
        ("logs/app[1].log", "[[] for a bracket"),
    ],
)
def test_a_pattern_that_leads_to_nothing_is_named_with_a_remedy(tmp_path: Path, pattern: str, remedy: str) -> None:
    Parties(tmp_path)
    for name in ("streams.d", "logs"):
        (tmp_path / name).mkdir()
    for name in ("a.json", "a.log", "app[1].log"):
        (tmp_path / "logs" / name).touch()
    source = f'type = "file"\npaths = ["logs/*.json", "logs/app[[]1].log", "{pattern}"]\n'
    (tmp_path / "streams.d" / "http.toml").write_text(f'name = "http"\n[source]\n{source}')
    tls = '[tls]\ncertificate = "forwarder.pem"\nkey = "forwarder.key"\nca = "ca.pem"\n'
    (tmp_path / "config.toml").write_text(CONFIGS[logfwd].format(tls=tls))
    result = CliRunner().invoke(logfwd, ["validate", "-c", str(tmp_path / "config.toml")])
    said = [line for line in result.output.splitlines() if "no file found" in line]
    assert result.exit_code == 0
    assert len(said) == 1
    assert pattern in said[0]
    assert remedy in said[0]


SAFE: dict[click.Group, tuple[str, str]] = {
    logfwd: ("forwarder", 'state_dir = "state"\nreceivers = ["localhost:7443"]\n{tls}'),
    logreceiver: ("receiver", CONFIGS[logreceiver].replace(':7443"\n', ':7443"\nmodes = ["hybrid", "pq-auth"]\n')),
}


def validate_pq_auth(
    program: click.Group, directory: Path, *, sections: dict[str, str] | None = None
) -> tuple[int, str]:
    """A stream or a listener in mode pq-auth, with certificates in DIRECTORY/mldsa."""
    party, config = SAFE[program]
    (directory / "streams.d").mkdir()
    text = 'name = "http"\nsecurity = "pq-auth"\n[source]\ntype = "stdin"\n'
    (directory / "streams.d" / "http.toml").write_text(text)
    places = sections or {"tls": "", "tls.mldsa": "mldsa/"}
    tls = "".join(
        f'[{name}]\ncertificate = "{at}{party}.pem"\nkey = "{at}{party}.key"\nca = "{at}ca.pem"\n'
        for name, at in places.items()
    )
    path = directory / "config.toml"
    path.write_text(config.format(tls=tls, grants="grant.key"))
    result = CliRunner().invoke(program, ["validate", "-c", str(path)])
    return result.exit_code, result.output


@pytest.mark.parametrize("program", SAFE)
def test_a_mode_whose_certificates_are_there_is_accepted(program: click.Group, tmp_path: Path) -> None:
    Parties(tmp_path)
    code, output = validate_pq_auth(program, tmp_path)
    assert (code, "pq-auth" in output) == (0, True)


def test_a_forwarder_without_classical_streams_needs_no_classical_files(tmp_path: Path) -> None:
    Parties(tmp_path)
    code, output = validate_pq_auth(logfwd, tmp_path, sections={"tls.mldsa": "mldsa/"})
    assert (code, "pq-auth" in output) == (0, True)


def test_a_receiver_that_serves_hybrid_too_is_told_which_files_it_lacks(tmp_path: Path) -> None:
    Parties(tmp_path)
    code, output = validate_pq_auth(logreceiver, tmp_path, sections={"tls.mldsa": "mldsa/"})
    assert (code, "config.toml: tls: is missing; mode hybrid needs [tls]" in output) == (78, True)


@pytest.mark.parametrize("program", SAFE)
def test_a_mode_whose_section_is_missing_is_named_with_the_commands_that_make_it(
    program: click.Group, tmp_path: Path
) -> None:
    Parties(tmp_path)
    code, output = validate_pq_auth(program, tmp_path, sections={"tls": ""})
    assert code == 78
    assert "config.toml: tls.mldsa: is missing; mode pq-auth needs [tls.mldsa]" in output
    assert "--key mldsa65" in output


@pytest.mark.parametrize("program", SAFE)
def test_an_ecdsa_authority_under_an_mldsa_leaf_is_named(program: click.Group, tmp_path: Path) -> None:
    parties = Parties(tmp_path)
    party = SAFE[program][0]
    for name in ("ca.pem", "ca.key"):
        (tmp_path / "mldsa" / name).write_bytes((tmp_path / name).read_bytes())
    weaker = pki.Authority.load(tmp_path / "mldsa")
    issue(weaker, party, kind="mldsa65", identities=[FORWARDER], hosts=["localhost"], role="both", force=True)
    code, output = validate_pq_auth(program, parties.directory)
    assert code == 78
    assert f"mldsa/{party}.pem: tls.mldsa.certificate: CN={FORWARDER} is signed with ECDSA with SHA-256" in output
    assert "mldsa/ca.pem: tls.mldsa.ca: the key of CN=logfwd private CA is EC secp256r1" in output


def test_all_files_that_cannot_be_used_are_told_at_once(tmp_path: Path) -> None:
    output = validate(logreceiver, tmp_path, key="forwarder.key", grants="ca.pem")
    assert "no usable grant key" in output
    assert "is not the key of the certificate" in output


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
    assert "is not the key of the certificate" in result.output


def test_a_state_dir_that_could_not_be_made_is_named(tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    for each in (good, bad):
        each.mkdir()
    (bad / "state").write_text("a file")
    assert "state_dir" not in validate(logfwd, good)
    said = f"state_dir {bad / 'state'} could not be used: {bad / 'state'} is not a directory"
    assert said in validate(logfwd, bad)


def test_files_that_two_streams_read_or_that_are_no_streams_are_named(tmp_path: Path) -> None:
    Parties(tmp_path)
    streams, logs = tmp_path / "streams.d", tmp_path / "logs"
    streams.mkdir()
    logs.mkdir()
    for name in ("a.log", "b.log"):
        (logs / name).touch()
    for name, pattern in (("one", "*.log"), ("two", "[ab].log"), ("three", "*.json")):
        (streams / f"{name}.toml").write_text(f'name = "{name}"\n[source]\ntype = "file"\npaths = ["logs/{pattern}"]\n')
    (streams / "four.conf").touch()
    path = tmp_path / "config.toml"
    tls = '[tls]\ncertificate = "forwarder.pem"\nkey = "forwarder.key"\nca = "ca.pem"\n'
    path.write_text(CONFIGS[logfwd].format(tls=tls))
    result = CliRunner().invoke(logfwd, ["validate", "-c", str(path)])
    assert result.exit_code == 0, result.output
    said = f"one and two read the same file, so its records are sent twice: {logs / 'a.log'} and 1 more\n"
    assert said in result.output
    assert "three" not in said
    assert f"{streams} has files that are no streams, as only NAME.toml is: four.conf\n" in result.output


SHOWS = 'kind = "ec"\ncertificate = "receiver-signs.pem"\nkey = "receiver-signs.dc"\nca = "ca.pem"\n'


@pytest.mark.parametrize("setting", ["accept_delegated = true\n", f"[tls.delegated]\n{SHOWS}"])
def test_modes_that_run_on_our_own_tls_for_delegated_keys_are_marked(setting: str, tmp_path: Path) -> None:
    delegating(Parties(tmp_path), "receiver", kind="ec")
    tls = f'[tls]\ncertificate = "receiver.pem"\nkey = "receiver.key"\nca = "ca.pem"\n{setting}'

    def output(modes: str) -> str:
        listening = CONFIGS[logreceiver].replace(':7443"\n', f':7443"\nmodes = {modes}\n')
        (tmp_path / "config.toml").write_text(listening.format(tls=tls, grants="grant.key"))
        return CliRunner().invoke(logreceiver, ["validate", "-c", str(tmp_path / "config.toml")]).output

    assert "listener :7443: hybrid (experimental, unaudited)" in output('["hybrid"]')
    assert "listener :7443: classical-tls12\n" in output('["classical-tls12"]')
    assert "need different TLS stacks" in output('["hybrid", "classical-tls12"]')


def test_a_certificate_for_the_other_role_is_reported(tmp_path: Path) -> None:
    parties = Parties(tmp_path)
    parties.leaf("receiver", identities=[FORWARDER], force=True)
    path = tmp_path / "config.toml"
    tls = '[tls]\ncertificate = "receiver.pem"\nkey = "receiver.key"\nca = "ca.pem"\n'
    path.write_text(CONFIGS[logreceiver].format(tls=tls, grants="grant.key"))
    result = CliRunner().invoke(logreceiver, ["validate", "-c", str(path)])
    assert result.exit_code == 78
    assert "receiver.pem: tls.certificate: peers would refuse it: " in result.output
