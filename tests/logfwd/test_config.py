"""logfwd.toml and its streams: everything is loaded together, and all problems are reported together."""

from __future__ import annotations

import tomllib
from pathlib import Path

import jsonschema
import pytest

from logfwd.config import json_schema, load_forwarder
from logfwd.sources.settings import FileSource
from streams.errors import ConfigError
from streams.security.modes import MODES

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
CONFIG = """\
state_dir = "state"
receivers = ["localhost:7443"]
[tls]
certificate = "pki/me.pem"
key = "pki/me.key"
ca = "pki/ca.pem"
"""
SECTIONS = ("tls", "tls.mldsa", "tls.mlkem")
MLDSA = '[tls.mldsa]\ncertificate = "pki/me.pem"\nkey = "pki/me.key"\nca = "pki/ca.pem"\n'
MLKEM = MLDSA.replace("mldsa", "mlkem")
STORED = MLKEM + 'stored_keys = ["pki/me.pem"]\n'
SOURCE = '[source]\ntype = "file"\npaths = ["a.log"]\n'


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A directory with a config that loads."""
    (tmp_path / "pki").mkdir()
    for name in ("me.pem", "me.key", "ca.pem"):
        (tmp_path / "pki" / name).touch()
    (tmp_path / "streams.d").mkdir()
    (tmp_path / "logfwd.toml").write_text(CONFIG)
    write_stream(tmp_path, "http", SOURCE)
    return tmp_path


def write_stream(site: Path, name: str, text: str) -> None:
    (site / "streams.d" / f"{name}.toml").write_text(f'name = "{name}"\n{text}')


def problems(site: Path) -> dict[tuple[str, str], str]:
    """Messages by file name and key."""
    with pytest.raises(ConfigError) as caught:
        load_forwarder(site / "logfwd.toml")
    return {(problem.path.name, problem.key): problem.message for problem in caught.value.problems}


def test_a_config_loads_with_defaults_and_paths_from_its_directory(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(site)
    config = load_forwarder(Path("logfwd.toml"))
    assert config.state_dir == site / "state"
    assert config.streams_dir == site / "streams.d"
    assert config.tls.key == site / "pki" / "me.key"
    assert (config.stop_grace_seconds, config.answer_timeout_seconds) == (10.0, 60.0)
    assert config.admin is not None
    assert config.admin.address == "127.0.0.1:9464"
    source = config.streams[0].source
    assert isinstance(source, FileSource)
    assert source.paths == (str(site / "a.log"),), "not from streams.d"


def test_twins_stand_after_originals_and_each_by_name(site: Path) -> None:
    write_stream(site, "a-twin", 'mirror_of = "http"\n')
    write_stream(site, "app", SOURCE)
    assert [stream.name for stream in load_forwarder(site / "logfwd.toml").streams] == ["app", "http", "a-twin"]


def test_two_streams_may_read_the_same_files(site: Path) -> None:
    write_stream(site, "again", SOURCE)
    assert len(load_forwarder(site / "logfwd.toml").streams) == 2


def test_admin_can_be_turned_off(site: Path) -> None:
    (site / "logfwd.toml").write_text("admin = false\n" + CONFIG)
    assert load_forwarder(site / "logfwd.toml").admin is None


def test_problems_of_all_files_are_reported_together(site: Path) -> None:
    (site / "logfwd.toml").write_text(CONFIG.replace("receivers", "recievers") + '[admin]\naddress = "x"\n')
    (site / "pki" / "me.key").unlink()
    (site / "streams.d" / "broken.toml").write_text("a = [\n")
    write_stream(site, "pq", 'mirror_of = "htp"\n[batch]\n')
    found = problems(site)
    assert set(found) == {
        ("logfwd.toml", "recievers"),
        ("logfwd.toml", "receivers"),
        ("logfwd.toml", "admin.address"),
        ("logfwd.toml", "tls.key"),
        ("broken.toml", ""),
        ("pq.toml", "batch"),
        ("pq.toml", "mirror_of"),
    }
    assert "did you mean 'receivers'?" in found["logfwd.toml", "recievers"]
    assert found["pq.toml", "mirror_of"] == "there is no stream 'htp'; existing streams: broken, http"


@pytest.mark.parametrize(
    ("key", "name", "remedy"),
    [
        ("tls.certificate", "me.pem", "logfwd pki issue"),
        ("tls.key", "me.key", "logfwd pki issue"),
        ("tls.ca", "ca.pem", "logfwd pki init"),
    ],
)
def test_a_missing_tls_file_is_named_with_the_command_that_makes_it(
    site: Path, key: str, name: str, remedy: str
) -> None:
    (site / "pki" / name).unlink()
    (message,) = problems(site).values()
    assert problems(site).keys() == {("logfwd.toml", key)}
    assert message.startswith(f"{site / 'pki' / name} cannot be read: No such file or directory; ")
    assert remedy in message


def test_a_directory_in_place_of_a_tls_file_is_named(site: Path) -> None:
    (site / "pki" / "me.pem").unlink()
    (site / "pki" / "me.pem").mkdir()
    assert "Is a directory" in problems(site)["logfwd.toml", "tls.certificate"]


def test_files_written_on_windows_are_read(site: Path) -> None:
    for path in (site / "logfwd.toml", site / "streams.d" / "http.toml"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert [stream.name for stream in load_forwarder(site / "logfwd.toml").streams] == ["http"]


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n"])
def test_a_blank_config_is_refused_whole(site: Path, text: str) -> None:
    (site / "logfwd.toml").write_text(text)
    assert problems(site) == {("logfwd.toml", ""): "is blank; nothing is taken from a blank file"}


def test_a_config_without_streams_is_refused(site: Path) -> None:
    (site / "streams.d" / "http.toml").rename(site / "streams.d" / ".http.toml")
    assert "has no stream files; add a NAME.toml" in problems(site)["streams.d", ""]


def test_a_missing_streams_directory_is_named(site: Path) -> None:
    (site / "logfwd.toml").write_text('streams_dir = "other"\n' + CONFIG)
    assert "is not a directory; create it" in problems(site)["other", ""]


def test_a_blank_stream_file_is_refused(site: Path) -> None:
    (site / "streams.d" / "app.toml").touch()
    assert "is blank" in problems(site)["app.toml", ""]


def test_a_stream_is_named_like_its_file_and_no_other_has_its_name(site: Path) -> None:
    (site / "streams.d" / "copy.toml").write_text(f'name = "http"\n{SOURCE}')
    found = problems(site)
    assert "'http' is used by 2 files" in found["http.toml", "name"]
    assert ("copy.toml", "name") in found
    (site / "streams.d" / "copy.toml").write_text(f'name = "app"\n{SOURCE}')
    assert problems(site)["copy.toml", "name"] == "is 'app' in a file named copy.toml; rename the file to app.toml"


def test_only_one_stream_reads_stdin(site: Path) -> None:
    for name in ("one", "two"):
        write_stream(site, name, '[source]\ntype = "stdin"\n')
    assert problems(site) == {
        ("two.toml", "source.type"): "stdin is read by stream 'one' already; only one stream can read it"
    }


@pytest.mark.parametrize(
    ("line", "key", "message"),
    [
        ("stop_grace = -1\n", "stop_grace", "is not a duration"),
        ('stop_grace = "2h"\n', "stop_grace", "is 2h; it must be at most 1h"),
        ("stop_grace_seconds = 3\n", "stop_grace_seconds", 'write stop_grace = "200ms"'),
        ("answer_timeout = 0.5\n", "answer_timeout", "is 500ms; it must be at least 1s"),
        ('server_name = ""\n', "server_name", "is empty"),
        ("streams = []\n", "streams", "is not known here"),
        ("streams_dir = 3\n", "streams_dir", "3 is not a text"),
        ("admin = true\n", "admin", "True is not a table"),
    ],
)
def test_a_mistake_in_logfwd_toml_is_named(site: Path, line: str, key: str, message: str) -> None:
    (site / "logfwd.toml").write_text(line + CONFIG)
    assert message in problems(site)["logfwd.toml", key]
    assert {name for name, _ in problems(site)} == {"logfwd.toml"}


def test_a_config_needs_a_receiver(site: Path) -> None:
    (site / "logfwd.toml").write_text(CONFIG.replace('"localhost:7443"', ""))
    assert problems(site) == {("logfwd.toml", "receivers"): "is empty; name at least one"}


def test_a_stream_in_a_mode_without_its_certificate_is_named_with_the_remedy(site: Path) -> None:
    write_stream(site, "safe", f'security = "pq-auth"\n{SOURCE.replace("a.log", "b.log")}')
    assert problems(site) == {
        ("logfwd.toml", "tls.mldsa"): "is missing; mode pq-auth needs [tls.mldsa] with certificate, key and ca; "
        "create them with `logfwd pki init` and `logfwd pki issue`, both with --key mldsa65"
    }
    (site / "logfwd.toml").write_text(CONFIG + MLDSA.replace("me.key", "none"))
    assert problems(site).keys() == {("logfwd.toml", "tls.mldsa.key")}
    (site / "logfwd.toml").write_text(CONFIG + MLDSA)
    config = load_forwarder(site / "logfwd.toml")
    assert config.tls.mldsa is not None
    assert config.tls.mldsa.ca == site / "pki" / "ca.pem"


def test_a_host_without_classical_modes_needs_no_classical_files(site: Path) -> None:
    head = CONFIG[: CONFIG.index("[tls]")]
    for path in (site / "streams.d").iterdir():
        path.write_text(f'security = "pq-auth"\n{path.read_text()}')
    (site / "logfwd.toml").write_text(head + MLDSA)
    (only,) = load_forwarder(site / "logfwd.toml").tls.sections()
    assert only.section == "tls.mldsa"
    (site / "logfwd.toml").write_text(head + '[tls]\ncertificate = "pki/me.pem"\n' + MLDSA)
    text = "is missing; [tls] needs certificate, key and ca together"
    assert problems(site) == {("logfwd.toml", f"tls.{key}"): text for key in ("key", "ca")}


def test_a_stream_with_stored_keys_needs_some_and_no_files_of_a_receiver(site: Path) -> None:
    write_stream(site, "safe", f'security = "kemtls-pdk"\n{SOURCE.replace("a.log", "b.log")}')
    (site / "logfwd.toml").write_text(CONFIG + MLKEM)
    assert problems(site) == {
        ("logfwd.toml", "tls.mlkem.stored_keys"): "is missing; mode kemtls-pdk needs the keys of its receivers: "
        "make them with `logfwd pki pdk`"
    }
    pair = '[[tls.mlkem.previous]]\ncertificate = "pki/me.pem"\nkey = "pki/me.key"\n'
    (site / "logfwd.toml").write_text(CONFIG + STORED + pair)
    assert problems(site).keys() == {("logfwd.toml", "tls.mlkem.previous")}


def test_a_stream_in_mode_kemtls_without_its_certificate_is_named_with_the_remedy(site: Path) -> None:
    write_stream(site, "safe", f'security = "kemtls"\n{SOURCE.replace("a.log", "b.log")}')
    assert problems(site) == {
        ("logfwd.toml", "tls.mlkem"): "is missing; mode kemtls needs [tls.mlkem] with certificate, key and ca; "
        "create them with `logfwd pki init --key mldsa65` and `logfwd pki issue --key mlkem768`"
    }
    (site / "logfwd.toml").write_text(CONFIG + MLKEM)
    assert load_forwarder(site / "logfwd.toml").tls.mlkem is not None


# -- examples and schemas ----------------------------------------------------------------------------------------


def test_the_examples_have_no_problem_but_certificates_that_are_not_made_yet() -> None:
    with pytest.raises(ConfigError) as caught:
        load_forwarder(EXAMPLES / "logfwd.toml")
    keys = [problem.key for problem in caught.value.problems]
    files = [f"{section}.{key}" for section in SECTIONS for key in ("certificate", "key", "ca")]
    assert keys == [*files, "tls.mlkem.stored_keys[0]"]


def test_there_is_an_example_for_every_mode_and_it_loads(site: Path) -> None:
    (site / "logfwd.toml").write_text(f'streams_dir = "{EXAMPLES / "modes.d"}"\n{CONFIG}{MLDSA}{STORED}')
    streams = load_forwarder(site / "logfwd.toml").streams
    assert {stream.security: stream.name for stream in streams} == {mode: f"app-{mode}" for mode in MODES}


def test_the_schemas_take_the_examples_and_refuse_what_the_loader_refuses() -> None:
    stream = jsonschema.Draft202012Validator(json_schema("stream"))
    main = jsonschema.Draft202012Validator(json_schema("logfwd"))
    main.validate(tomllib.loads((EXAMPLES / "logfwd.toml").read_text()))
    for path in [*EXAMPLES.glob("streams.d/*.toml"), *EXAMPLES.glob("modes.d/*.toml")]:
        stream.validate(tomllib.loads(path.read_text()))
    for text in ("nam = 1", "window = 6", 'batch.linger = "5 parsecs"', "batch.linger = 0", "batch.linger_seconds = 1"):
        assert not stream.is_valid(tomllib.loads(f'name = "a"\n{text}')), text
    stream.validate({"name": "a", "add": {"host": "${HOSTNAME}", "n": 1, "x": 0.5, "live": True}})
    assert not stream.is_valid({"name": "a", "add": {"host": ["a"]}})
    assert not main.is_valid(tomllib.loads(CONFIG.replace('"localhost:7443"', "")))
    assert not main.is_valid(tomllib.loads("streams = []\n" + CONFIG))
    assert main.is_valid(tomllib.loads("admin = false\nstop_grace = 1.5\n" + CONFIG))


def test_a_stream_that_is_to_go_is_declared_and_takes_its_twins_along(site: Path) -> None:
    write_stream(site, "copy", 'mirror_of = "http"\n')
    write_stream(site, "other", SOURCE.replace("a.log", "b.log"))
    write_stream(site, "http", f"removed = true\n{SOURCE}")
    config = load_forwarder(site / "logfwd.toml")
    assert ([stream.name for stream in config.streams], config.removed) == (["other"], ("http",))
    write_stream(site, "other", f"removed = true\n{SOURCE.replace('a.log', 'b.log')}")
    assert problems(site) == {("streams.d", ""): "every stream is removed; stop the forwarder instead"}
