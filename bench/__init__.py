"""`logbench`: measures the programs, breaks them, and compares streams; runs real processes."""
