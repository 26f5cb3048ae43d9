"""Endpoints of webhooks and what was told them."""
