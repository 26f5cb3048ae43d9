"""Images that a job drew."""
