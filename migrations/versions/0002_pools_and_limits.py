"""Pools, priorities and GPU time of jobs; limits of projects."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("projects", sa.Column("max_concurrent_jobs", sa.Integer(), nullable=True))
    op.add_column(
        "projects", sa.Column("max_gpu_hours", sa.Double(), nullable=True, comment="in a calendar month, UTC")
    )
    op.add_column("projects", sa.Column("max_storage_bytes", sa.BigInteger(), nullable=True))
    for name in ("max_concurrent_jobs", "max_gpu_hours", "max_storage_bytes"):
        op.create_check_constraint(op.f(f"ck_projects_{name}"), "projects", f"{name} > 0")
    op.add_column(
        "jobs",
        sa.Column(
            "priority",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="class: higher is claimed first",
        ),
    )
    op.add_column("jobs", sa.Column("num_gpus", sa.Integer(), server_default=sa.text("1"), nullable=False))
    op.add_column("jobs", sa.Column("gpu_type", sa.Text(), nullable=True, comment="the pool it needs; NULL: any"))
    op.add_column(
        "jobs",
        sa.Column(
            "gpu_seconds",
            sa.Double(),
            server_default=sa.text("0"),
            nullable=False,
            comment="of the attempts that have ended",
        ),
    )
    cpu = sa.text("'cpu'")
    op.add_column(
        "attempts",
        sa.Column("gpu_type", sa.Text(), server_default=cpu, nullable=False, comment="of the worker's pool"),
    )
    op.add_column("attempts", sa.Column("num_gpus", sa.Integer(), server_default=sa.text("1"), nullable=False))
    op.add_column("workers", sa.Column("gpu_type", sa.Text(), server_default=cpu, nullable=False))
    op.add_column("workers", sa.Column("num_gpus", sa.Integer(), server_default=sa.text("1"), nullable=False))
