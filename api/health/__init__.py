"""Whether the process lives, and whether what it needs can be reached."""
