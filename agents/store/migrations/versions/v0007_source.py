"""The mark of a stored replay, beside the time of its import. What was stored before has none: it was seen live."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("queries", "incidents"):
        op.add_column(table, sa.Column("source", sa.Text, nullable=False, server_default=""))
        op.add_column(table, sa.Column("imported_at", sa.Double))
    if op.get_bind().dialect.name == "sqlite":  # on Postgres, replays have partitions of their own
        op.execute("CREATE INDEX queries_replayed ON queries (day) WHERE day < 0")


def downgrade() -> None:
    op.execute("DROP INDEX IF EXISTS queries_replayed")
    for table in ("queries", "incidents"):
        op.drop_column(table, "imported_at")
        op.drop_column(table, "source")
