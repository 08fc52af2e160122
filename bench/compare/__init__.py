"""Two streams compared: rounds of measurements, intervals, a verdict in words, and a report."""
