"""Samples by the prompt of the evaluation, and by step."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "samples",
        sa.Column("prompt_index", sa.Integer(), nullable=True, comment="among the prompts of the evaluation"),
    )
    op.create_index("ix_samples_job_id_prompt_index_id", "samples", ["job_id", "prompt_index", "id"])
    op.create_index("ix_samples_job_id_step_id", "samples", ["job_id", "step", "id"])
