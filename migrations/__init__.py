"""The schema's history, by alembic: `python -m migrations upgrade`. Expand, then contract; never edited once released."""
