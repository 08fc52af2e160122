"""The laboratory: real forwarders, receivers, Kafka and Prometheus, started, fed, watched and judged."""
