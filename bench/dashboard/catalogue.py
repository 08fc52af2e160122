"""Every metric of both programs; `python -m bench.dashboard.catalogue` prints docs/metrics.md."""

from __future__ import annotations

from logfwd.metrics import FORWARDER
from logreceiver.metrics import MAX_STREAM_LABELS, OTHER_STREAMS, RECEIVER
from streams.telemetry.metrics import SHARED
from streams.telemetry.window import WINDOW

CATALOGUE = (*SHARED, *FORWARDER, *RECEIVER)
INTRODUCTION = f"""# Metrics

`python -m bench.dashboard.catalogue` prints this page from the declarations in the code; a test compares the
two. Both programs serve these metrics at `/metrics` of their admin address, as OpenMetrics if the client asks for it,
together with those of the process (`process_*`).

Durations have buckets from 0.1 ms to 10 s, six per decade. `/api/v1/streams` ([api.md](api.md)) also gives the median
and the 95th and 99th percentile of each stream's last {WINDOW} handshake and batch durations (forwarder) and sink times
(receiver), computed from the values themselves.

The number of series grows with the number of streams, never with links, forwarders or records. A forwarder's streams
are those of its configuration. A receiver counts the first {MAX_STREAM_LABELS} stream names that it admits under their
own names, and all others under `{OTHER_STREAMS}`: with `streams = ["*"]` forwarders choose the names.
"""


def markdown() -> str:
    """docs/metrics.md."""
    parts = [INTRODUCTION]
    for title, metrics in (
        ("Both programs", SHARED),
        ("Forwarder (`logfwd`)", FORWARDER),
        ("Receiver (`logreceiver`)", RECEIVER),
    ):
        parts.append(f"\n## {title}\n\n| metric | kind | unit | labels | meaning |\n|---|---|---|---|---|\n")
        for name, kind, unit, labels, sentence, _ in metrics:
            parts.append(f"| `{name}` | {kind} | {unit or '–'} | {', '.join(labels)} | {sentence} |\n")
    return "".join(parts)


if __name__ == "__main__":
    print(markdown(), end="")
