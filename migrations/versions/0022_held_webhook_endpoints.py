"""Until when an endpoint of webhooks asked to be left alone."""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("webhook_endpoints", sa.Column("held_until", sa.DateTime(timezone=True), nullable=True))
