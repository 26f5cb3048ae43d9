"""Prompt sets: create from JSON, JSON Lines or plain text, list, read, delete."""
