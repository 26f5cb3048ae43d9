"""Alignment jobs: create, list, show, cancel, pause, resume, retry."""
