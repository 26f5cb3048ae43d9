"""Alignment jobs: create, list, show, cancel."""
