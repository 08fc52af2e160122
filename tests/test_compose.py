"""docker-compose.yml, Dockerfile and examples fit each other, the command lines and the official schema.

No engine is needed: the file is checked against the compose specification's own JSON Schema, the commands in it are
parsed by the programs that they name, and the configurations are loaded with certificates made by the script of its
`pki` service.
"""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, cast

import click
import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from bench.lab import generate
from logfwd.cli import main as logfwd
from logfwd.config import load_forwarder
from logreceiver.cli import main as logreceiver
from logreceiver.config import load_receiver
from logreceiver.sinks.settings import KafkaSink
from streams.addresses import split_address

ROOT = Path(__file__).parent.parent
HOME = "/etc/logfwd"
PROGRAMS: dict[str, click.Command] = {"logfwd": logfwd, "logreceiver": logreceiver}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return cast(dict[str, Any], YAML(typ="safe").load(ROOT / "docker-compose.yml"))


@pytest.fixture(scope="module")
def volumes(compose: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The volumes, once the pki service's script has run."""
    place = tmp_path_factory.mktemp("volumes")
    script = compose["services"]["pki"]["command"][-1]
    for source, target in mounts(compose["services"]["pki"]):
        (place / source).mkdir(0o700)
        script = script.replace(target, str(place / source))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["/bin/sh", "-euc", script], env={"PATH": path}, capture_output=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr.decode()
    return place


@pytest.fixture(scope="module")
def installed(compose: dict[str, Any], volumes: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of each program, /etc/logfwd as its container sees it, and its configuration there."""
    found = {}
    for name in PROGRAMS:
        home = tmp_path_factory.mktemp(name)
        for source, target in mounts(compose["services"][name]):
            if target.startswith(HOME):
                inside = home / target.removeprefix(f"{HOME}/")
                copy(ROOT / source, inside) if source.startswith("./") else inside.symlink_to(volumes / source)
        found[name] = home / f"{name}.toml"
    return found


def mounts(service: dict[str, Any]) -> list[tuple[str, str]]:
    return [(volume.split(":")[0], volume.split(":")[1]) for volume in service.get("volumes", [])]


def copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copy(source, target)


def parse(command: click.Command, arguments: list[str]) -> click.Context:
    """Parse a command line as click does, running nothing; raises UsageError."""
    context = command.make_context(command.name, list(arguments), resilient_parsing=False)
    if isinstance(command, click.Group):
        name, inner, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert inner is not None, name
        return parse(inner, rest)
    return context


def test_the_file_follows_the_compose_specification() -> None:
    checker = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    result = subprocess.run(
        [*checker, "docker-compose.yml"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("name", ["logfwd", "logreceiver"])
def test_a_program_is_run_as_documented(compose: dict[str, Any], name: str) -> None:
    command = compose["services"][name]["command"]
    assert command == [name, "run", "-c", f"{HOME}/{name}.toml"]
    assert parse(PROGRAMS[name], command[1:]).params["path"] == Path(f"{HOME}/{name}.toml")


def test_traffic_goes_where_the_stream_reads(compose: dict[str, Any], installed: dict[str, Path]) -> None:
    command = compose["services"]["traffic"]["command"]
    assert command[:2] == ["logbench", "generate"]
    out = parse(generate.generate, command[2:]).params["out"]
    (original,) = (stream for stream in load_forwarder(installed["logfwd"]).streams if stream.source is not None)
    assert any(out.match(pattern) for pattern in original.source.paths)  # type: ignore[union-attr]


def test_the_configurations_load_with_the_certificates_that_pki_makes(installed: dict[str, Path]) -> None:
    forwarder = load_forwarder(installed["logfwd"])
    receiver = load_receiver(installed["logreceiver"])
    assert [stream.name for stream in forwarder.streams] == ["http", "pq-stream"]
    assert isinstance(receiver.sink, KafkaSink)
    for name, program in PROGRAMS.items():
        validated = CliRunner().invoke(program, ["validate", "-c", str(installed[name])])
        assert validated.exit_code == 0, validated.output


def test_a_program_has_its_own_keys_and_neither_the_authoritys_nor_the_others(
    compose: dict[str, Any], installed: dict[str, Path]
) -> None:
    keys = {name: {path.name for path in config.parent.rglob("pki/**/*.key")} for name, config in installed.items()}
    assert keys == {
        "logfwd": {"forwarder.key", "forwarder-kem.key"},
        "logreceiver": {"receiver.key", "receiver-kem.key", "grant.key"},
    }
    for path in (path for config in installed.values() for path in config.parent.rglob("pki/**/*.key")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert [name for name, service in compose["services"].items() if "pki" in dict(mounts(service))] == ["pki"]


def test_hosts_and_ports_meet(compose: dict[str, Any], installed: dict[str, Path]) -> None:
    forwarder, receiver = load_forwarder(installed["logfwd"]), load_receiver(installed["logreceiver"])
    served = {split_address(listener.address)[1]: listener.modes for listener in receiver.listener}
    for stream in forwarder.streams:
        for address in stream.receivers or forwarder.receivers:
            host, port = split_address(address)
            assert host in compose["services"]
            assert stream.security in served[port]
    assert isinstance(receiver.sink, KafkaSink)
    assert [f"PLAINTEXT://{broker}" for broker in receiver.sink.brokers] == [
        compose["services"]["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    ]
    for name, admin in (("logfwd", forwarder.admin), ("logreceiver", receiver.admin)):
        assert admin is not None
        port = split_address(admin.address)[1]
        assert admin.address == f":{port}", "other containers scrape it"
        assert admin.hosts == (name,), "under the name of its service"
        assert f"127.0.0.1:{port}/" in compose["services"][name]["healthcheck"]["test"][-1]


def test_the_configurations_are_those_of_the_examples_but_for_the_admin_address() -> None:
    for name in PROGRAMS:
        example, deployed = (
            tomllib.loads((ROOT / place / f"{name}.toml").read_text()) for place in ("examples", "deploy")
        )
        assert example.pop("admin") != deployed.pop("admin")
        assert example == deployed


def test_everything_that_is_mounted_exists(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        for source, target in mounts(service):
            assert target.startswith("/"), name
            assert (ROOT / source).exists() if source.startswith("./") else source in compose["volumes"]


def test_writable_volumes_belong_to_the_images_user(compose: dict[str, Any]) -> None:
    made = shlex.split((ROOT / "Dockerfile").read_text().replace("\\\n", " "), comments=True)
    ours = [service for service in compose["services"].values() if "build" in service]
    assert len(ours) == 4
    for service in ours:
        assert all(target in made for source, target in mounts(service) if not source.startswith("./"))


def test_a_program_waits_for_what_it_needs(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for name in ("kafka", "logfwd", "logreceiver"):
        assert services[name]["healthcheck"]["test"][0] == "CMD"
    assert services["logreceiver"]["depends_on"]["kafka"] == {"condition": "service_healthy"}
    for name in ("logfwd", "logreceiver"):
        assert services[name]["depends_on"]["pki"] == {"condition": "service_completed_successfully"}
    assert "logreceiver" not in services["logfwd"]["depends_on"], "a forwarder starts and spools without a receiver"


def test_the_image_is_made_of_what_the_build_may_see() -> None:
    seen = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    instructions = (ROOT / "Dockerfile").read_text().splitlines()
    copied = {
        word
        for line in instructions
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
    }
    assert copied == seen
    assert all((ROOT / name).exists() for name in seen)
    assert "uv sync --frozen" in (ROOT / "Dockerfile").read_text()
    users = [line.split()[1] for line in instructions if line.startswith("USER ")]
    assert users == ["logfwd"]
