"""Workers that take no more jobs."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "workers",
        sa.Column(
            "draining_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="since when it is to take no more jobs",
        ),
    )
