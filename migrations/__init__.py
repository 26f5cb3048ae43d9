"""The history of the schema, by alembic. Expand, then contract; a migration is never edited once released."""
