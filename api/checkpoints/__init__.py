"""Committed checkpoints and exported adapters, and their files."""
