"""GPU time by day; what was summed up by month stands on the month's first day."""

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.alter_column("gpu_time", "month", new_column_name="day")
