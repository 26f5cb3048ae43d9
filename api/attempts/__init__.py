"""Attempts of a job: which worker, from which step, and how each ended."""
