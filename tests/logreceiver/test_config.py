"""logreceiver.toml: how each mistake is reported."""

from __future__ import annotations

import tomllib
from pathlib import Path

import jsonschema
import msgspec
import pytest

from logreceiver.config import json_schema, load_receiver
from logreceiver.sinks.settings import KafkaSink, LogSink
from streams.errors import ConfigError
from streams.security.modes import MODES

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
HEAD = 'grant_key_file = "grant.key"\n'
TLS = '[tls]\ncertificate = "me.pem"\nkey = "me.key"\nca = "ca.pem"\n'
LISTENER = '[[listener]]\naddress = "127.0.0.1:7443"\n'
ALLOW = '[[allow]]\nidentity = "spiffe://example.net/*"\nstreams = ["*"]\n'
SINK = '[sink]\ntype = "log"\ndirectory = "log"\n'
KAFKA = '[sink]\ntype = "kafka"\nbrokers = ["kafka:9092"]\n'
SINK_TLS = '[sink.tls]\ncertificate = "me.pem"\nkey = "me.key"\nca = "ca.pem"\n'
SASL = '[sink.sasl]\nusername = "u"\npassword_file = "ca.pem"\n'
GOOD = HEAD + TLS + LISTENER + ALLOW + SINK


@pytest.fixture
def path(tmp_path: Path) -> Path:
    for name in ("grant.key", "me.pem", "me.key", "ca.pem"):
        (tmp_path / name).touch()
    path = tmp_path / "logreceiver.toml"
    path.write_text(GOOD)
    return path


def problems(path: Path, text: str) -> dict[str, str]:
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_receiver(path)
    return {problem.key: problem.message for problem in caught.value.problems}


def test_a_config_loads_with_defaults_and_paths_from_its_directory(path: Path) -> None:
    config = load_receiver(path)
    assert config.grant_key_file == path.parent / "grant.key"
    assert config.sink == LogSink(directory=path.parent / "log")
    assert config.listener[0].modes == ("hybrid",)
    assert config.allow[0].topic == "{stream}"
    assert (config.limits.handshake_seconds, config.limits.hello_seconds) == (10.0, 5.0)


def test_a_listener_behind_proxies_names_them(path: Path) -> None:
    path.write_text(HEAD + TLS + LISTENER + 'proxy_from = ["10.0.0.0/8", "2001:db8::7"]\n' + ALLOW + SINK)
    assert load_receiver(path).listener[0].proxy_from == ("10.0.0.0/8", "2001:db8::7")
    for proxies, key, message in (
        ("[]", "listener[0].proxy_from", "is empty; name at least one"),
        ('["proxy"]', "listener[0].proxy_from[0]", "'proxy' is no network: "),
        ('["10.0.0.1/8"]', "listener[0].proxy_from[0]", "'10.0.0.1/8' is no network: "),
    ):
        found = problems(path, HEAD + TLS + LISTENER + f"proxy_from = {proxies}\n" + ALLOW + SINK)
        assert list(found) == [key]
        assert found[key].startswith(message)


def test_hosts_of_the_admin_address_are_names_without_ports(path: Path) -> None:
    path.write_text(GOOD + '[admin]\nhosts = ["logs.example.net", "10.1.2.3", "::1"]\n')
    admin = load_receiver(path).admin
    assert admin is not None
    assert admin.hosts == ("logs.example.net", "10.1.2.3", "::1")
    for host in ("logs.example.net:443", "https://logs", "", "a b"):
        (problem,) = problems(path, f'{GOOD}[admin]\nhosts = ["{host}"]\n').items()
        text = f"{host!r} is no name of a host; write one as in 'logs.example.net', without a port"
        assert problem == ("admin.hosts[0]", text)


def test_a_topic_that_drains_and_its_last_day_are_checked(path: Path) -> None:
    def allow(topic: str, until: str) -> str:
        return f'{ALLOW}drains = [{{ topic = "{topic}", until = "{until}" }}]\n'

    path.write_text(HEAD + TLS + LISTENER + allow("old-{stream}", "2027-01-31") + SINK)
    (drain,) = load_receiver(path).allow[0].drains
    assert (drain.topic, drain.until) == ("old-{stream}", "2027-01-31")
    for day in ("2027-02-30", "20270131", "soon", "2027-1-31"):
        (problem,) = problems(path, HEAD + TLS + LISTENER + allow("old", day) + SINK).items()
        assert problem == ("allow[0].drains[0].until", f'{day!r} is not a day; write it as "2027-01-31"')
    (key,) = problems(path, HEAD + TLS + LISTENER + allow("logfwd.ledger", "2027-01-31") + SINK)
    assert key == "allow[0].drains[0].topic"


def test_a_listener_of_modes_that_share_no_stack_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODES, "other", msgspec.structs.replace(MODES["hybrid"], name="other", stack="another"))
    second = LISTENER.replace("7443", "7444") + 'modes = ["hybrid", "other"]\n'
    assert problems(path, HEAD + TLS + LISTENER + second + ALLOW + SINK) == {
        "listener[1].modes": "'other' (another) and 'hybrid' (openssl) need different TLS stacks, which cannot share a "
        "port; give each its own [[listener]]"
    }


def test_a_listener_of_a_mode_without_its_certificate_is_named_with_the_remedy(path: Path) -> None:
    serving = LISTENER + 'modes = ["hybrid", "pq-auth"]\n'
    assert problems(path, HEAD + TLS + serving + ALLOW + SINK) == {
        "tls.mldsa": "is missing; mode pq-auth needs [tls.mldsa] with certificate, key and ca; "
        "create them with `logfwd pki init` and `logfwd pki issue`, both with --key mldsa65"
    }
    path.write_text(HEAD + TLS + TLS.replace("tls", "tls.mldsa") + serving + ALLOW + SINK)
    assert load_receiver(path).tls.mldsa is not None
    assert "tls.mldsa.key" in problems(
        path,
        path.read_text().replace(
            '[tls.mldsa]\ncertificate = "me.pem"\nkey = "me.key"', '[tls.mldsa]\ncertificate = "me.pem"\nkey = "none"'
        ),
    )


def test_its_modes_are_those_of_all_listeners_and_of_the_leg_to_kafka(path: Path) -> None:
    assert load_receiver(path).modes == {"hybrid"}
    other = '[[listener]]\naddress = "127.0.0.1:7444"\nmodes = ["hybrid-p256", "hybrid"]\n'
    path.write_text(HEAD + TLS + LISTENER + other + ALLOW + KAFKA)
    assert load_receiver(path).modes == {"hybrid", "hybrid-p256"}
    path.write_text(HEAD + TLS + LISTENER + ALLOW + KAFKA + 'security = "classical"\n' + SINK_TLS)
    assert load_receiver(path).modes == {"hybrid", "classical"}


def test_the_ledger_is_on_by_default_and_no_stream_may_go_to_its_topic(path: Path) -> None:
    kept = load_receiver(path).ledger
    assert kept is not None
    assert kept.topic == "logfwd.ledger"
    mixed = ALLOW + 'topic = "logfwd.ledger"\n'
    assert "only receivers write" in problems(path, HEAD + TLS + LISTENER + mixed + SINK)["allow[0].topic"]
    path.write_text("ledger = false\n" + HEAD + TLS + LISTENER + mixed + SINK)
    assert load_receiver(path).ledger is None


def test_a_kafka_sink_loads_with_tls_and_sasl(path: Path) -> None:
    more = 'security = "hybrid"\nproduce_timeout = "5s"\n'
    path.write_text(HEAD + TLS + LISTENER + ALLOW + KAFKA + more + SINK_TLS + SASL)
    sink = load_receiver(path).sink
    assert isinstance(sink, KafkaSink)
    assert sink.tls is not None
    assert sink.sasl is not None
    assert (sink.produce_timeout_seconds, sink.sasl.mechanism) == (5.0, "SCRAM-SHA-512")
    assert sink.sasl.password_file == path.parent / "ca.pem"


@pytest.mark.parametrize(
    ("old", "new", "key", "message"),
    [
        (HEAD, "", "grant_key_file", "is missing; add grant_key_file = …"),
        ('"grant.key"', '"none"', "grant_key_file", "logfwd pki init"),
        ('"me.pem"', '"none"', "tls.certificate", "logfwd pki issue"),
        (TLS, "", "tls", "is missing; mode hybrid needs [tls] with certificate, key and ca; create them with"),
        (LISTENER, "", "listener", "is missing; add [[listener]]"),
        (LISTENER, '[listener]\naddress = ":1"\n', "listener", "is not a list; write [[listener]]"),
        (HEAD + TLS + LISTENER, HEAD + "listener = []\n" + TLS, "listener", "is empty; name at least one"),
        ("127.0.0.1:7443", "127.0.0.1", "listener[0].address", "'127.0.0.1' is not HOST:PORT"),
        ("127.0.0.1:7443", "127.0.0.1:70000", "listener[0].address", "is not HOST:PORT"),
        (LISTENER, LISTENER * 2, "listener[1].address", "127.0.0.1:7443 is already used by another listener"),
        (LISTENER, f"{LISTENER}modes = []\n", "listener[0].modes", "is empty; name at least one"),
        (LISTENER, f'{LISTENER}modes = ["pq"]\n', "listener[0].modes[0]", "unknown mode 'pq'; the modes are: "),
        (ALLOW, "", "allow", "is missing; add [[allow]]"),
        ("spiffe://example.net/*", "", "allow[0].identity", "is empty"),
        ('streams = ["*"]', "streams = []", "allow[0].streams", "is empty; name at least one"),
        ('streams = ["*"]', 'streams = [" "]', "allow[0].streams[0]", "is empty"),
        (ALLOW, f'{ALLOW}modes = ["hybrid", "x"]\n', "allow[0].modes[1]", "unknown mode 'x'"),
        (ALLOW, f'{ALLOW}topic = "{{name}}"\n', "allow[0].topic", "is not a valid Kafka topic name"),
        (SINK, "", "sink", "is missing; add [sink]"),
        ('type = "log"\n', "", "sink.type", 'is missing; write "log" or "kafka"'),
        ('type = "log"', 'type = "kafak"', "sink.type", "did you mean 'kafka'?"),
        (SINK, f'{SINK}max_segment_bytes = "1kB"\n', "sink.max_segment_bytes", "is 1000B; it must be at least 1MiB"),
        (SINK, f"{SINK}brokers = []\n", "sink.brokers", "is not known here"),
        (SINK, SINK + "[limits]\nhandshake = 0\n", "limits.handshake", "is 0s; it must be at least 100ms"),
        (SINK, SINK + '[limits]\nmax_memory_bytes = "1MB"\n', "limits.max_memory_bytes", "it must be at least 16MiB"),
        (SINK, SINK + '[admin]\naddress = "9465"\n', "admin.address", "'9465' is not HOST:PORT"),
        (SINK, KAFKA.replace('"kafka:9092"', ""), "sink.brokers", "is empty; name at least one"),
        (SINK, KAFKA.replace("kafka:9092", "kafka"), "sink.brokers[0]", "'kafka' is not HOST:PORT"),
        (SINK, KAFKA + 'security = "tls"\n', "sink.security", '"classical" or "hybrid-preferred" or "hybrid"'),
        (SINK, KAFKA + 'security = "hybrid"\n', "sink.tls", "is missing; mode hybrid needs [sink.tls]"),
        (SINK, KAFKA + SINK_TLS, "sink.tls", 'has no effect with security = "plaintext"'),
        (SINK, KAFKA + SASL + 'mechanism = "PLAIN"\n', "sink.sasl.mechanism", "sends the password unencrypted"),
        (SINK, KAFKA + SASL.replace("ca.pem", "none"), "sink.sasl.password_file", "write the password into it"),
        (SINK, KAFKA + 'produce_timeout = "1ms"\n', "sink.produce_timeout", "is 1ms; it must be at least 1s"),
        (SINK, KAFKA + "create_topics = 1\n", "sink.create_topics", "1 is not true or false"),
    ],
)
def test_a_mistake_is_named_with_its_key_and_a_remedy(path: Path, old: str, new: str, key: str, message: str) -> None:
    assert old in GOOD
    found = problems(path, GOOD.replace(old, new))
    assert list(found) == [key]
    assert message in found[key]


def test_all_problems_are_reported_at_once(path: Path) -> None:
    text = 'sotp_grace = "1s"\n' + GOOD.replace("127.0.0.1:7443", "x").replace('["*"]', "[]").replace(
        '"log"\n', '"lag"\n', 1
    )
    assert list(problems(path, text)) == ["sotp_grace", "listener[0].address", "allow[0].streams", "sink.type"]


def test_port_0_may_be_used_twice_as_the_system_chooses(path: Path) -> None:
    listener = LISTENER.replace("7443", "0")
    path.write_text(GOOD.replace(LISTENER, listener * 2))
    assert len(load_receiver(path).listener) == 2


def test_a_blank_config_is_refused(path: Path) -> None:
    assert problems(path, "\n") == {"": "is blank; nothing is taken from a blank file"}


def test_the_example_has_no_problem_except_files_not_created_yet() -> None:
    with pytest.raises(ConfigError) as caught:
        load_receiver(EXAMPLES / "logreceiver.toml")
    files = {
        f"{section}.{key}" for section in ("tls", "tls.mldsa", "tls.mlkem") for key in ("certificate", "key", "ca")
    }
    assert {problem.key for problem in caught.value.problems} == {"grant_key_file", *files}


def test_the_schema_takes_the_example_and_refuses_what_the_loader_refuses() -> None:
    schema = jsonschema.Draft202012Validator(json_schema())
    schema.validate(tomllib.loads((EXAMPLES / "logreceiver.toml").read_text()))
    schema.validate(tomllib.loads(GOOD))
    for text in (
        GOOD.replace("type", "typ"),
        GOOD.replace('"log"', '"lag"'),
        GOOD + "x = 1\n",
        GOOD.replace(ALLOW, ""),
    ):
        assert not schema.is_valid(tomllib.loads(text))
