"""The order of the queue as an index, and the GPU time of projects by month."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("ix_jobs_queued", table_name="jobs")
    op.create_index(
        "ix_jobs_lanes",
        "jobs",
        ["priority", sa.text("coalesce(gpu_type, '')"), "num_gpus", "project_id", "id"],
        postgresql_where=sa.text("status = 'queued'"),
    )
    op.create_table(
        "gpu_time",
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("month", sa.DateTime(timezone=True), nullable=False, comment="its first moment"),
        sa.Column("gpu_type", sa.Text(), nullable=False),
        sa.Column("gpu_seconds", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_gpu_time_project_id")),
        sa.PrimaryKeyConstraint("project_id", "month", "gpu_type", name=op.f("pk_gpu_time")),
    )
