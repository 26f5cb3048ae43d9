"""The dry run of a job: what it would do and take, before it is queued."""
