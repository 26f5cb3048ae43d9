"""Secrets: create, list, show, replace, delete. A value goes in and never comes back."""
