"""Jobs that are kept from a worker whose machine is suspect."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    comment = "whose machine is suspect, until avoid_until"
    op.add_column("jobs", sa.Column("avoid_worker", sa.Text(), nullable=True, comment=comment))
    op.add_column("jobs", sa.Column("avoid_until", sa.DateTime(timezone=True), nullable=True))
