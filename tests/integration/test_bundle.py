"""A support bundle has what is needed to help, and no secret from any place where one can stand."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from pathlib import Path

from bench.lab.site import Site, command
from tests.support.patience import PATIENCE_SECONDS

CANARY = "canary-5d1e"
STREAM = f"""
# {CANARY}-comment
security = "hybrid"
topic = "${{TOPIC:-{CANARY}-default}}"
{CANARY}-unknown-key = "{CANARY}-unknown-value"
sceurity = "{CANARY}-mistyped"
[source]
type = "file"
paths = ["http.log"]
pasword = ["{CANARY}-list", {{ deep = "{CANARY}-deep" }}]
[add]
token = "{CANARY}-added"
number = 51125112
[headers]
authorization = "{CANARY}-header"
"""


def bundle(site: Site, out: Path, program: str = "logfwd") -> tuple[subprocess.CompletedProcess[str], dict[str, str]]:
    """What the command said, and the files in what it wrote."""
    argv = [command(program), "bundle", "-c", str(site.directory / f"{program}.toml"), "--out", str(out)]
    environment = {**os.environ, "SECRET": f"{CANARY}-environment"}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60, env=environment)
    if done.returncode:
        return done, {}
    with tarfile.open(out) as archive:
        files = {each.name.partition("/")[2]: archive.extractfile(each) for each in archive}
        return done, {name: file.read().decode() for name, file in files.items() if file is not None}


def test_it_has_what_is_needed_to_help(tmp_path: Path) -> None:
    with Site(tmp_path / "site") as site:
        site.make_pki()
        more = 'control_socket = "control.sock"\n'
        site.write_receiver('type = "log"\ndirectory = "log"', listeners={"localhost:0": '["hybrid"]'}, more=more)
        site.write_stream("http", '[source]\ntype = "file"\npaths = ["http.log"]\n')
        (site.directory / "http.log").write_text('{"n":1}\n')
        site.write_forwarder(site.start_receiver())
        site.start_forwarder()
        config = site.directory / "logfwd.toml"
        config.write_text(config.read_text().replace("127.0.0.1:0", site.admin_address))
        _, files = bundle(site, tmp_path / "a.tar.gz")
        assert (tmp_path / "a.tar.gz").stat().st_mode & 0o777 == 0o600
        assert json.loads(files["status.json"])["streams"][0]["stream"] == "http"
        assert "logfwd_records_total" in files["metrics.txt"]
        assert json.loads(files["readyz.txt"])["status"] == "ok"
        assert json.loads(files["config/logfwd.json"])["server_name"] == "localhost"
        assert json.loads(files["config/streams.d/http.json"])["source"] == {"type": "file", "paths": ["http.log"]}
        assert "http.spool" in json.loads(files["state_dir.json"])
        assert site.wait_until_acknowledged(1, ["http"], PATIENCE_SECONDS)
        _, files = bundle(site, tmp_path / "r.tar.gz", "logreceiver")
        assert json.loads(files["status.json"])["workers"][0]["streams"][0]["records"]["stored"] == 1
        assert json.loads(files["links.json"])["workers"][0]["links"][0]["identity"] == "spiffe://demo/host-1"
        assert "does not answer" in files["metrics.txt"], "its port is not the configured one"
        assert json.loads(files["config/logreceiver.json"])["allow"][0]["identity"] == "spiffe://demo/*"
        assert any(
            name.startswith("http") and name.endswith(".log") for name in json.loads(files["log_directory.json"])
        )
        assert json.loads(files["versions.json"])["packages"]["logfwd"]
        done, _ = bundle(site, tmp_path / "a.tar.gz")
        assert (done.returncode, "name a new file" in done.stderr) == (1, True)


def test_no_secret_is_in_it(tmp_path: Path) -> None:
    with Site(tmp_path / "site") as site:
        site.make_pki()
        (site.directory / "secret").write_text(f"{CANARY}-file")
        site.write_stream("http", STREAM)
        site.write_stream("broken", f'[source\ntype = "{CANARY}-broken"\n')
        site.write_forwarder(["localhost:1", "${file:secret}", "${SECRET}"])
        done, files = bundle(site, tmp_path / "b.tar.gz")
        assert done.returncode == 0, done.stderr
        everything = "\n".join(files.values()) + "\n".join(files) + done.stdout + done.stderr
        assert CANARY not in everything
        assert "51125112" not in everything
        for key in site.directory.glob("pki/**/*.key"):
            assert not any(line in everything for line in key.read_text().splitlines() if len(line) > 40)
        assert '"security": "hybrid"' in files["config/streams.d/http.json"]
        assert "${file:secret}" in files["config/logfwd.json"], "named, not read"
        assert "is the program running" in files["status.json"]


def test_no_secret_of_a_receiver_is_in_it(tmp_path: Path) -> None:
    with Site(tmp_path / "site") as site:
        site.make_pki()
        (site.directory / "password").write_text(f"{CANARY}-file")
        sink = (
            'type = "kafka"\nbrokers = ["localhost:1"]\n[sink.sasl]\nusername = "u"\npassword_file = "password"\n'
            f'password = "{CANARY}-unknown"\n[{CANARY}]\nx = "{CANARY}"\n'
        )
        site.write_receiver(sink, listeners={"localhost:0": '["hybrid"]'}, more=f"# {CANARY}\n")
        done, files = bundle(site, tmp_path / "b.tar.gz", "logreceiver")
        assert done.returncode == 0, done.stderr
        everything = "\n".join(files.values()) + "\n".join(files) + done.stdout + done.stderr
        assert CANARY not in everything
        for key in site.directory.glob("pki/**/*.key"):
            assert not any(line in everything for line in key.read_text().splitlines() if len(line) > 40)
        assert json.loads(files["config/logreceiver.json"])["sink"]["sasl"]["password_file"] == "password"
        assert "it has no control_socket" in files["status.json"]
