"""Prompt sets, and which jobs name them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    jsonb = postgresql.JSONB(astext_type=sa.Text())
    op.create_table(
        "datasets",
        sa.Column("id", sa.Text(collation="C"), nullable=False, comment="ds_…"),
        sa.Column("project_id", sa.Text(collation="C"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("metadata", jsonb, nullable=False),
        sa.Column("splits", jsonb, nullable=False, comment="number of prompts of each split"),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False, comment="of all prompts as UTF-8"),
        sa.Column("sha256", sa.Text(), nullable=False, comment="of the prompts, by split"),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_datasets_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_datasets")),
    )
    op.create_index(op.f("ix_datasets_project_id_id"), "datasets", ["project_id", "id"])
    op.create_table(
        "dataset_splits",
        sa.Column("dataset_id", sa.Text(collation="C"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("prompts", jsonb, nullable=False),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["datasets.id"], name=op.f("fk_dataset_splits_dataset_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("dataset_id", "name", name=op.f("pk_dataset_splits")),
    )
    op.create_table(
        "job_datasets",
        sa.Column("dataset_id", sa.Text(collation="C"), nullable=False),
        sa.Column("job_id", sa.Text(collation="C"), nullable=False),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name=op.f("fk_job_datasets_dataset_id")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_datasets_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("dataset_id", "job_id", name=op.f("pk_job_datasets")),
    )
    op.create_index(op.f("ix_job_datasets_job_id"), "job_datasets", ["job_id"])
