"""Blocks of records into sealed batches: when a batch is full, what is a record, and framing with compression."""
