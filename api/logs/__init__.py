"""The log of a job, line by line, with a long-poll."""
