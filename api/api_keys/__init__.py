"""API keys: issue, list, show, rotate, revoke."""
