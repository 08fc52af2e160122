"""What a running program shows: logs, metrics, health, the API and its live page."""

from streams.packages import in_parts

in_parts("prometheus_client")  # all of it has HTTP servers and clients
