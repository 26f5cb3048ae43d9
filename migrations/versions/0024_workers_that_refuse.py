"""Why a worker takes no jobs, as it says itself."""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "workers", sa.Column("refusal", sa.Text(), nullable=True, comment="why it takes none now, as it says itself")
    )
