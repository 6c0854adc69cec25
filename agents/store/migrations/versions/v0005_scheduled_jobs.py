"""When jobs ran and are due, in a table of ours. The one that goes held pickles of APScheduler; nobody reads them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "scheduled_jobs",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("schedule", sa.Text, nullable=False),
        sa.Column("last_run", sa.Double),
        sa.Column("next_run", sa.Double, nullable=False),
    )
    op.execute("DROP TABLE IF EXISTS scheduler_jobs")


def downgrade() -> None:
    op.drop_table("scheduled_jobs")
