"""Numbers of a job by step, as JSON, CSV or NDJSON."""
