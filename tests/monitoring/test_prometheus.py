"""A real Prometheus with real programs accepts their metrics, every panel's query and every rule; so does promtool."""

from __future__ import annotations

import math
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.lab.generate import generate_http
from bench.lab.processes import StartFailed
from bench.lab.prometheus import Prometheus, promtool, tools
from bench.lab.site import Site
from streams.security.pki import Authority
from tests.monitoring.queries import ALERTS, ROOT, filled_in, panel_queries, rules
from tests.support.patience import PATIENCE_SECONDS

WITHOUT_TROUBLE_EMPTY = (
    "logfwd_run_resets_total",
    "logfwd_http_requests_total",  # no stream takes requests here
    "logfwd_evicted_keys_total",
    "logfwd_file_bytes_total",
    "logfwd_files_total",
    "logfwd_syslog_dropped_messages_total",
    "logfwd_syslog_ended_connections_total",
    "logreceiver_clones_suspected_total",
    "logreceiver_crl_next_update",  # no revocation list is configured here
    "logfwd_link_failures_total",
    "tls_policy_violations_total",
    "tls_handshakes_total",
    "logreceiver_refused_links_total",
    "task_failures_total",
    'outcome=~"refused|uncertain"',
)
"""Parts of panels' queries that have no series while nothing is wrong."""
LISTENERS = {"127.0.0.1:0": '["hybrid", "classical"]', "127.0.0.2:0": '["classical"]'}


@pytest.fixture(scope="module", autouse=True)
def _tools() -> None:
    try:
        tools()
    except StartFailed as error:
        pytest.skip(f"{error}\nor install Prometheus 2.42 or later, with promtool, on the PATH")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Both programs as processes, a stream and its twins; one is downgraded, the forwarder's certificate ends soon."""
    with Site(tmp_path / "site") as site:
        site.make_pki()
        authority = Authority.load(site.directory / "pki")
        authority.issue(
            identities=[site.identity], hosts=[], days=7, out=site.directory / "pki" / "forwarder", force=True
        )
        site.write_receiver('type = "log"\ndirectory = "log"', listeners=LISTENERS)
        address, classical_alone = site.start_receiver(listeners=2)
        site.write_forwarder([address])
        site.write_stream(
            "http",
            'security = "classical"\n[source]\ntype = "file"\npaths = ["http.log"]\nscan = "50ms"\n'
            '[batch]\nlinger = "20ms"\n',
        )
        site.write_stream("pq-stream", 'security = "hybrid"\nmirror_of = "http"\n')
        site.write_stream(
            "migrating", f'security = "hybrid-preferred"\nmirror_of = "http"\nreceivers = ["{classical_alone}"]\n'
        )
        site.start_forwarder()
        site.forwarder.wait_for("link opened", times=3)
        yield site


@pytest.fixture
def prometheus(site: Site) -> Iterator[Prometheus]:
    with Prometheus(
        site.directory / "prometheus", {"logfwd": [site.admin_address], "logreceiver": [receiver_admin(site)]}
    ) as running:
        yield running


def receiver_admin(site: Site) -> str:
    return str(site.receiver.wait_for("admin listening")[-1]["address"])


def eventually(condition: Callable[[], object], state: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, state()
        time.sleep(0.1)


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", ROOT / "deploy" / "prometheus" / "prometheus.yml"),
        ("check", "rules", "--lint=all", "--lint-fatal", ALERTS),
        ("test", "rules", ROOT / "tests" / "monitoring" / "alerts.test.yml"),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_promtool_finds_nothing_wrong(arguments: tuple[str | Path, ...]) -> None:
    result = promtool(*arguments)
    assert result.returncode == 0, result.stdout + result.stderr


def test_promtool_finds_nothing_wrong_with_the_metrics_of_both_programs(site: Site) -> None:
    for address in (site.admin_address, receiver_admin(site)):
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=PATIENCE_SECONDS) as answer:
            exposed = answer.read()
        result = promtool("check", "metrics", text=exposed)
        assert (result.returncode, result.stdout + result.stderr) == (0, ""), address


def test_every_panel_has_data_and_the_figures_have_numbers(site: Site, prometheus: Prometheus) -> None:
    records = generate_http(1_000_000, seed=1)
    missing: list[tuple[str, str]] = []

    def all_there() -> bool:
        with (site.directory / "http.log").open("ab") as log:
            log.write(b"".join(next(records) + b"\n" for _ in range(20)))
        missing[:] = [
            (title, query)
            for title, query in panel_queries()
            if not any(math.isfinite(float(sample["value"][1])) for sample in prometheus.query(filled_in(query)))
            and not any(part in query for part in WITHOUT_TROUBLE_EMPTY)
        ]
        return not missing

    eventually(all_there, lambda: missing)
    latency = next(query for title, query in panel_queries() if title == "TLS latency by stream and group")
    assert {
        (sample["metric"]["stream"], sample["metric"]["group"]) for sample in prometheus.query(filled_in(latency))
    } == {("http", "X25519"), ("pq-stream", "X25519MLKEM768"), ("migrating", "X25519")}


def test_every_rule_is_evaluated_and_troubles_raise_alerts(site: Site, prometheus: Prometheus) -> None:
    def states() -> dict[str, str]:
        return {rule["name"]: rule["health"] for rule in prometheus.rules()}

    expected = {"ReceiverDown", "NoLink", "CertificateExpiresSoon", "TlsDowngrade"}
    eventually(lambda: set(states().values()) == {"ok"}, states)
    assert set(states()) == {rule.get("alert", rule.get("record")) for rule in rules()}
    gone = receiver_admin(site)
    site.receiver.kill()

    def alerts() -> dict[str, str]:
        found = [alert for rule in prometheus.rules() for alert in rule.get("alerts", [])]
        return {alert["labels"]["alertname"]: alert["annotations"]["summary"] for alert in found}

    eventually(lambda: expected <= set(alerts()), alerts)
    assert alerts()["ReceiverDown"] == f"{gone} does not answer"
    assert alerts()["CertificateExpiresSoon"].startswith(f"{site.admin_address}: own certificate expires in 6d 23h ")
    assert alerts()["TlsDowngrade"] == "migrating: a link got its second choice, X25519"
