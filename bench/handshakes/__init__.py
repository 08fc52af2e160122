"""Handshakes by mode, dissected on the wire: round trips, bytes, CPU."""
