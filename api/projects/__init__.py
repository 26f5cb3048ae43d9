"""Projects and their limits."""
