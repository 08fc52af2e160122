"""What a running program shows: logs, metrics, health, the API and its live page."""
