"""Marks of objects that no row names, and when the files of a deleted checkpoint were removed."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "garbage",
        sa.Column("object_key", sa.Text(collation="C"), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("found_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column(
            "seen_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="when it was last found without a row",
        ),
        sa.PrimaryKeyConstraint("object_key", name=op.f("pk_garbage")),
    )
    op.add_column("checkpoints", sa.Column("purged_at", sa.DateTime(timezone=True), nullable=True))
