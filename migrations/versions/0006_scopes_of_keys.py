"""Scopes of API keys; those that are there may do what they could: everything in their project."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    scopes = sa.Column("scopes", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{*}'"), nullable=False)
    op.add_column("api_keys", scopes)
