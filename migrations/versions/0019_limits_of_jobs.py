"""Budgets and deadlines of jobs, which may be changed; those of jobs that are there are in their specs."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("max_gpu_hours", sa.Double(), comment="a job that has used them is paused"))
    comment = "its owner's deadline; then it is paused"
    op.add_column("jobs", sa.Column("pause_at", sa.DateTime(timezone=True), comment=comment))
    op.create_index("ix_jobs_pause_at", "jobs", ["pause_at"], postgresql_where=sa.text("status = 'queued'"))
    op.execute("UPDATE jobs SET max_gpu_hours = (spec #>> '{limits,max_gpu_hours}')::float8")
