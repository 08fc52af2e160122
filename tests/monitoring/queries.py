"""Every query of the dashboard and of the rules, with the parts to check against the catalogue of metrics."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML

from bench.dashboard.catalogue import CATALOGUE
from bench.dashboard.grafana import dashboard
from streams.telemetry.metrics import Metric

ROOT = Path(__file__).parent.parent.parent
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"
OTHERS = ("up", "ALERTS", "process_cpu_seconds_total", "process_resident_memory_bytes", "process_start_time_seconds")
"""Metrics of Prometheus itself, and those that prometheus_client exposes for every process."""
SCRAPED = {"job", "instance"}
BY_NAME: dict[str, Metric] = {metric.name: metric for metric in CATALOGUE}
_SELECTOR = re.compile(r'(?<![\w:."])([a-zA-Z_][\w:]*+)(?!\s*\()(?:\{([^}]*)\})?')
_MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')
_GROUPING = re.compile(r"\b(by|on)\s*\(([^)]*)\)")
_WORDS = {"by", "on", "and", "or", "unless"}


class Selector(NamedTuple):
    """A metric in a query, and its matchers: label, operator, value."""

    name: str
    matchers: tuple[tuple[str, str, str], ...]


def rules() -> list[dict[str, Any]]:
    groups = YAML(typ="safe").load(ALERTS)["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def panel_queries() -> Iterator[tuple[str, str]]:
    """Panel titles with each of their expressions."""
    return ((panel["title"], target["expr"]) for panel in panels() for target in panel["targets"])


def queries() -> list[str]:
    return [expression for _, expression in panel_queries()] + [rule["expr"] for rule in rules()]


def filled_in(query: str, window: str = "10s") -> str:
    """A panel's query as Grafana would send it, with all streams selected."""
    for variable, value in {
        "$__rate_interval": window,
        "$stream": ".*",
        "$original": "http",
        "$twin": "pq-stream",
    }.items():
        query = query.replace(variable, value)
    return query


def groupings(query: str) -> set[str]:
    """Labels named in by (…) and on (…)."""
    return {label.strip() for _, labels in _GROUPING.findall(query) for label in labels.split(",")}


def selectors(query: str) -> list[Selector]:
    """The metrics that a query selects, without functions, `by (…)`, durations and numbers."""
    without = re.sub(r"\[[^]]*\]", "", _GROUPING.sub("", query))
    without = re.sub(r"\boffset\s+\w+", "", without)
    return [
        Selector(name, tuple(_MATCHER.findall(matchers)))
        for name, matchers in _SELECTOR.findall(without)
        if name not in _WORDS
    ]


def labels_of(name: str) -> set[str] | None:
    """Labels that a series of this name can have; None for a name that is not exposed."""
    if name in OTHERS:
        return SCRAPED | ({"alertname", "alertstate", "severity", "stream"} if name == "ALERTS" else set())
    recorded = {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}
    if name in recorded:
        return labels_of(selectors(recorded[name])[0].name)
    if (metric := BY_NAME.get(name)) is not None and metric.kind != "histogram":
        return {*metric.labels, *SCRAPED}
    base, _, suffix = name.rpartition("_")
    if (
        (metric := BY_NAME.get(base)) is not None
        and metric.kind == "histogram"
        and suffix in ("bucket", "sum", "count")
    ):
        return {*metric.labels, *SCRAPED, *(["le"] if suffix == "bucket" else [])}
    return None
