"""Pages generated from the code: the Grafana dashboard and the list of metrics."""
