"""Kafka record batches (message format v2): built once at the edge, checked and stamped as bytes, read back."""
