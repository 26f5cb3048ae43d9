"""The adapters that the jobs of a project have made."""
