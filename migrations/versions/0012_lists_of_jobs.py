"""Indexes that serve the filters of lists of jobs."""

from __future__ import annotations

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds one index for each column that lists filter by."""
    for column in ("status", "name", "base_model"):
        op.create_index(f"ix_jobs_project_id_{column}_id", "jobs", ["project_id", column, "id"])
