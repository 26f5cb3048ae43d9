"""What happened to a job, with a long-poll."""
