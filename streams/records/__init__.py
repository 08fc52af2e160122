"""Kafka record batches (message format v2): built once at the edge, checked and stamped as bytes, read back."""

from streams.packages import in_parts

in_parts("crc32c")  # all of it has a command line, and looks its own version up
