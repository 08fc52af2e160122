"""Numbers and how they are shown: intervals, this machine's limit, tables, pictures, provenance."""
