"""Dashboard and rules use only metrics of the catalogue, and the pieces of the deployment fit together."""

from __future__ import annotations

import json
import re
from typing import Any, cast

import pytest
from ruamel.yaml import YAML

from bench.dashboard import panels
from bench.dashboard.grafana import COLUMNS, dashboard
from tests.monitoring.queries import (
    BY_NAME,
    ROOT,
    filled_in,
    groupings,
    labels_of,
    panel_queries,
    queries,
    rules,
    selectors,
)
from tests.monitoring.queries import panels as shown

GRAFANA = ROOT / "deploy" / "grafana"
ENUMERATED = ("state", "stage", "outcome", "direction", "owner", "role", "result")
"""Labels whose values are listed in their metric's sentence."""


def load(*parts: str) -> dict[str, Any]:
    return cast(dict[str, Any], YAML(typ="safe").load(ROOT.joinpath(*parts)))


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("sum by (le, stream) (rate(a_bucket[5m])) / b_total", ["a_bucket", "b_total"]),
        ('a{x="1", y=~"b|c"} offset 10m unless on (job) b * 0 > 600', ["a", "b"]),
        ("histogram_quantile(0.5, c:d:e) - time() < 14 * 86400", ["c:d:e"]),
    ],
)
def test_the_metrics_of_a_query_are_found(query: str, names: list[str]) -> None:
    assert [selector.name for selector in selectors(query)] == names


@pytest.mark.parametrize("query", sorted(set(queries())))
def test_a_query_uses_metrics_and_labels_of_the_catalogue(query: str) -> None:
    asked = selectors(query)
    assert asked
    known: set[str] = set()
    for name, matchers in asked:
        labels = labels_of(name)
        assert labels is not None, f"{name} is not exposed"
        known |= labels
        assert {label for label, _, _ in matchers} <= labels, name
        metric = BY_NAME.get(re.sub("_(bucket|sum|count)$", "", name))
        for label, _, value in matchers:
            if label in ENUMERATED and metric is not None:
                listed = "forwarder, receiver" if label == "role" else metric.sentence
                assert all(word in listed for word in value.split("|")), f"{name}: {label} is never {value}"
    assert groupings(query) <= known


def test_a_legend_names_labels_that_the_query_keeps() -> None:
    for panel in shown():
        for target in panel["targets"]:
            labels = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            kept = groupings(target["expr"]) or labels_of(selectors(target["expr"])[0].name)
            assert kept is not None
            assert labels <= kept, panel["title"]


def test_every_metric_is_shown_or_watched() -> None:
    asked = {re.sub("_(bucket|sum|count)$", "", each.name) for query in queries() for each in selectors(query)}
    # second views of what is shown: of the receiver's batches, of the spool's batches
    assert set(BY_NAME) - asked == {"logreceiver_records_total", "logfwd_spool_records"}


def test_the_first_two_panels_are_the_two_figures() -> None:
    first, second = shown()[:2]
    assert first["title"] == "TLS latency by stream and group"
    assert {each.name for each in selectors(first["targets"][0]["expr"])} == {
        "tls_handshake_seconds_sum",
        "tls_handshake_seconds_count",
    }
    assert second["title"] == "Average batch send duration by stream"
    assert second["gridPos"]["y"] == first["gridPos"]["y"]


def test_the_dashboard_is_generated_from_its_panels() -> None:
    assert json.loads((GRAFANA / "dashboards" / "logfwd.json").read_text()) == dashboard(), (
        "run: python -m bench.dashboard.grafana > deploy/grafana/dashboards/logfwd.json"
    )


def test_panels_are_distinct_and_do_not_overlap() -> None:
    found = dashboard()["panels"]
    assert len({panel["id"] for panel in found}) == len({panel["title"] for panel in found}) == len(found)
    taken: set[tuple[int, int]] = set()
    for panel in found:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= COLUMNS
        taken |= cells


def test_every_variable_of_a_query_is_declared_in_the_dashboard() -> None:
    declared = {variable["name"] for variable in dashboard()["templating"]["list"]}
    used = {name for _, query in panel_queries() for name in re.findall(r"\$(\w+)", query)}
    assert used - {"__rate_interval"} == declared - {"datasource"}
    assert not any("$" in filled_in(query) for _, query in panel_queries())


def test_alerts_say_what_happened_and_what_to_do() -> None:
    for rule in rules():
        if "alert" in rule:
            assert set(rule["annotations"]) == {"summary", "description", "action"}, rule["alert"]
            assert rule["labels"]["severity"] in ("critical", "warning")


def test_log_events_and_panels_that_alerts_name_exist() -> None:
    events = set(re.findall(r"^\| `([^`]+)` \|", (ROOT / "docs" / "events.md").read_text(), re.MULTILINE))
    titles = {panel["title"] for panel in shown()}
    words = [" ".join(rule["annotations"]["action"].split()) for rule in rules() if "alert" in rule]
    logged = [
        name
        for text in words
        for part in re.findall(r"log (?:line|has) ((?:`[^`]+`(?: or )?)+)", text)
        for name in re.findall("`([^`]+)`", part)
    ]
    named = [name for text in words for name in re.findall(r"panel `([^`]+)`", text)]
    assert len(logged) >= 5
    assert set(logged) <= events
    assert len(named) >= 3
    assert set(named) <= titles


def test_every_alert_has_a_test_in_which_it_fires() -> None:
    tested = (ROOT / "tests" / "monitoring" / "alerts.test.yml").read_text()
    fires = set(re.findall(r'alertname="(\w+)"', tested))
    assert fires == {rule["alert"] for rule in rules() if "alert" in rule}


def test_docs_have_every_panel_and_every_alert() -> None:
    docs = (ROOT / "docs" / "monitoring.md").read_text()
    assert panels.table() in docs, 'run: python -c "from bench.dashboard import panels; print(panels.table())"'
    for rule in rules():
        if "alert" in rule:
            action = " ".join(rule["annotations"]["action"].split())
            assert f"| `{rule['alert']}` | {rule['labels']['severity']} |" in docs, rule["alert"]
            assert f" {action} |" in docs, rule["alert"]


def test_prometheus_and_grafana_read_what_compose_mounts_and_scrape_what_it_runs() -> None:
    services = load("docker-compose.yml")["services"]
    scraped = {
        job["job_name"]: job["static_configs"][0]["targets"]
        for job in load("deploy", "prometheus", "prometheus.yml")["scrape_configs"]
    }
    assert scraped == {"logfwd": ["logfwd:9464"], "logreceiver": ["logreceiver:9465"]}
    for name, (target,) in scraped.items():
        host, port = target.split(":")
        assert host in services
        assert f"127.0.0.1:{port}:{port}" in services[name]["ports"]
    (source,) = load("deploy", "grafana", "provisioning", "datasources", "prometheus.yml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = load("deploy", "grafana", "provisioning", "dashboards", "logfwd.yml")["providers"]
    mounts = dict(volume.split(":")[:2] for volume in services["grafana"]["volumes"])
    assert mounts["./deploy/grafana/dashboards"] == provider["options"]["path"]
    assert mounts["./deploy/grafana/provisioning"] == "/etc/grafana/provisioning"
    assert "./deploy/prometheus:/etc/prometheus:ro" in services["prometheus"]["volumes"]
    images = [service["image"] for name, service in services.items() if "build" not in service]
    assert all(re.fullmatch(r"[\w/]+:v?\d+\.\d+\.\d+", image) for image in images), "pinned"
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert all(port.startswith("127.0.0.1:") for port in ports), "nothing is served beyond this machine"
