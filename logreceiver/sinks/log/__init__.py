"""The embedded log as a sink: segments on disk in Kafka's own format, which Kafka's tools read."""
