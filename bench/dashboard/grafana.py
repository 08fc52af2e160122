"""The Grafana dashboard of the panels in panels.py; `python -m bench.dashboard.grafana` prints its JSON.

The file that Grafana reads, deploy/grafana/dashboards/logfwd.json, is generated here, and so is the table of panels in
docs/monitoring.md; tests compare them, and run every query against a real Prometheus.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from bench.dashboard.panels import ROWS, Panel

COLUMNS = 24
HEIGHT = 9
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
DAY_SECONDS = 86400


_LINES = {
    "custom": {"lineWidth": 2, "fillOpacity": 0, "showPoints": "never", "spanNulls": 60_000},
    "min": 0,
}
_LEGEND = {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True}}
_REDUCED = {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}
_OPTIONS: dict[str, dict[str, Any]] = {
    "timeseries": {**_LEGEND, "tooltip": {"mode": "multi", "sort": "desc"}},
    "stat": {**_REDUCED, "colorMode": "background", "graphMode": "none", "textMode": "value_and_name"},
    "bargauge": {**_REDUCED, "displayMode": "basic", "orientation": "horizontal", "valueMode": "color"},
    "table": {"showHeader": True},
}
_STEPS: dict[str, Sequence[tuple[str, float | None]]] = {
    "Unaccounted records": (("red", None), ("green", 0), ("red", 1)),
    "Programs": (("red", None), ("green", 1)),
    "Certificates expire in": (("red", None), ("orange", 2 * DAY_SECONDS), ("green", 14 * DAY_SECONDS)),
}
_HIDDEN = dict.fromkeys(("Time", "Value", "__name__", "alertstate"), True)


def _panel(panel: Panel, number: int, column: int, line: int) -> dict[str, Any]:
    steps = [{"color": color, "value": value} for color, value in _STEPS.get(panel.title, [("green", None)])]
    defaults = {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps}}
    table = panel.kind == "table"
    found = {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "gridPos": {"h": HEIGHT, "w": panel.width, "x": column, "y": line},
        "fieldConfig": {"defaults": defaults | (_LINES if panel.kind == "timeseries" else {}), "overrides": []},
        "options": _OPTIONS[panel.kind],
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": DATASOURCE,
                "expr": expression,
                "legendFormat": legend,
                **({"format": "table", "instant": True} if table else {"range": True}),
            }
            for index, (expression, legend) in enumerate(panel.queries)
        ],
    }
    if table:
        found["transformations"] = [{"id": "organize", "options": {"excludeByName": _HIDDEN}}]
    return found


def _panels() -> Iterator[dict[str, Any]]:
    number, line = 1, 0
    for title, panels in ROWS.items():
        yield {
            "id": 100 + line,
            "type": "row",
            "title": title,
            "collapsed": False,
            "panels": [],
            "gridPos": {"h": 1, "w": COLUMNS, "x": 0, "y": line},
        }
        line, column = line + 1, 0
        for panel in panels:
            if column + panel.width > COLUMNS:
                line, column = line + HEIGHT, 0
            yield _panel(panel, number, column, line)
            number, column = number + 1, column + panel.width
        line += HEIGHT


def _variable(name: str, label: str, current: Any, **more: Any) -> dict[str, Any]:
    query = "label_values(logfwd_records_total, stream)"
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": DATASOURCE,
        "definition": query,
        "query": {"query": query, "refId": name},
        "current": current,
        "refresh": 2,
        "sort": 1,
        **more,
    }


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana's JSON model."""
    everything = {"text": ["All"], "value": ["$__all"]}
    return {
        "uid": "logfwd",
        "title": "logfwd: streams side by side",
        "description": "What post-quantum TLS costs for each stream, and whether any record is lost.",
        "tags": ["logfwd"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "5s",
        "time": {"from": "now-15m", "to": "now"},
        "templating": {
            "list": [
                {"type": "datasource", "name": "datasource", "label": "Prometheus", "query": "prometheus"},
                _variable("stream", "Streams", everything, includeAll=True, multi=True, allValue=".*"),
                _variable("original", "Original", {"text": "http", "value": "http"}),
                _variable("twin", "Twin", {"text": "pq-stream", "value": "pq-stream"}),
            ]
        },
        "panels": list(_panels()),
    }


if __name__ == "__main__":
    print(json.dumps(dashboard(), indent=1))
