"""How many events of type `log` a job was to have."""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "jobs",
        sa.Column(
            "num_log_events",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="asked for; jobs.events keeps so many",
        ),
    )
